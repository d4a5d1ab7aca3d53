package convert

import (
	"errors"
	"net/netip"

	"go4.org/netipx"
)

// peers is a set of addresses: every address, or those of some pods and some networks. The networks' addresses may be pods' too.
type peers struct {
	everyone bool
	pods     pods
	nets     *netipx.IPSet // never nil
}

var (
	everyone = peers{everyone: true, nets: &netipx.IPSet{}}
	noPeers  = peers{nets: &netipx.IPSet{}}
)

func (p peers) empty() bool { return !p.everyone && p.pods.empty() && emptySet(p.nets) }

func emptySet(s *netipx.IPSet) bool { return len(s.Ranges()) == 0 }

var allAddresses = build(func(b *netipx.IPSetBuilder) { b.Complement() })

func build(f func(*netipx.IPSetBuilder)) *netipx.IPSet {
	var b netipx.IPSetBuilder
	f(&b)
	s, err := b.IPSet()
	if err != nil {
		panic(err) // of ranges that are none, and all here are
	}
	return s
}

func setOf(nets []netip.Prefix) *netipx.IPSet {
	return build(func(b *netipx.IPSetBuilder) {
		for _, n := range nets {
			b.AddPrefix(n)
		}
	})
}

func setMinus(a, b *netipx.IPSet) *netipx.IPSet {
	return build(func(s *netipx.IPSetBuilder) { s.AddSet(a); s.RemoveSet(b) })
}

func setIntersect(a, b *netipx.IPSet) *netipx.IPSet {
	return build(func(s *netipx.IPSetBuilder) { s.AddSet(a); s.Intersect(b) })
}

// space is the set that pods have their addresses from.
type space struct{ pods *netipx.IPSet }

func (s space) apart(nets *netipx.IPSet) bool { return !s.pods.Overlaps(nets) }
func (s space) covered(nets *netipx.IPSet) bool {
	return emptySet(setMinus(s.pods, nets))
}

var (
	errPodsAndNets   = errors.New("pods and networks are meant at once: a peer of a NetworkPolicy selects pods or is an ipBlock, never what is both")
	errEverybodyElse = errors.New("everything but some pods is meant, and NetworkPolicies only add up: ipBlocks know no labels")
)

// minus are the addresses in a and not in b.
func (s space) minus(a, b peers) (peers, error) {
	switch {
	case b.everyone:
		return noPeers, nil
	case b.empty():
		return a, nil
	case a.everyone && !b.pods.empty():
		return noPeers, errEverybodyElse
	case a.everyone:
		return peers{nets: setMinus(allAddresses, b.nets)}, nil
	}
	out := peers{nets: setMinus(a.nets, b.nets)}
	var err error
	if out.pods, err = a.pods.minus(b.pods); err != nil {
		return noPeers, err
	}
	if !out.pods.empty() && !s.apart(b.nets) {
		if !s.covered(b.nets) {
			return noPeers, errPodsAndNets
		}
		out.pods = noPods
	}
	if !b.pods.empty() && !s.apart(out.nets) {
		return noPeers, errPodsAndNets
	}
	return out, nil
}

// intersect are the addresses in both.
func (s space) intersect(a, b peers) (peers, error) {
	if a.everyone {
		return b, nil
	}
	if b.everyone {
		return a, nil
	}
	out := peers{nets: setIntersect(a.nets, b.nets)}
	var err error
	if out.pods, err = a.pods.intersect(b.pods); err != nil {
		return noPeers, err
	}
	for _, mixed := range []struct {
		pods pods
		nets *netipx.IPSet
	}{{a.pods, b.nets}, {b.pods, a.nets}} {
		switch {
		case mixed.pods.empty() || s.apart(mixed.nets):
		case !s.covered(mixed.nets):
			return noPeers, errPodsAndNets
		default:
			if out.pods, err = out.pods.union(mixed.pods); err != nil {
				return noPeers, err
			}
		}
	}
	return out, nil
}
