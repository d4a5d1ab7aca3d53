package compiler

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"

	"github.com/kidoban/kidoban/internal/policy"
)

// A backlog is the prefixes where atoms of a large set begin and end. Their classes are found in several Steps: until the backlog is
// empty, no set in use asks for these atoms, so that it does not matter which addresses already have them.
type backlog struct {
	marks prefixSet
	queue []netip.Prefix // whose classes are left to find, a prefix before those within it
}

// A prefixSet is hosts and networks, as the maps divide them.
type prefixSet struct {
	hosts map[netip.Addr]struct{}
	nets  map[netip.Prefix]struct{}
}

func newPrefixSet() prefixSet {
	return prefixSet{hosts: map[netip.Addr]struct{}{}, nets: map[netip.Prefix]struct{}{}}
}

func (p *prefixSet) add(prefix netip.Prefix) {
	if prefix.IsSingleIP() {
		p.hosts[prefix.Addr()] = struct{}{}
	} else {
		p.nets[prefix] = struct{}{}
	}
}

// reset empties the set. It keeps the memory of a small one, for the next change of the same kind.
func (p *prefixSet) reset() {
	const small = 64
	if p.len() > small {
		*p = newPrefixSet()
		return
	}
	clear(p.hosts)
	clear(p.nets)
}

func (p *prefixSet) len() int { return len(p.hosts) + len(p.nets) }

// manyPrefixes is from how many on the classes inside a block are found in several Steps.
const manyPrefixes = 1 << 14

// isLarge reports whether a new set of policies may change the classes of many prefixes, or split so many classes that the rows of other
// sets for them may not fit.
func (c *Compiler) isLarge(d policy.Direction, policies []*policy.Policy) bool {
	if c.measuring {
		return false
	}
	peers := 0
	for _, p := range policies {
		peers += c.encoded[p].estimates[d].peers
	}
	return len(c.hosts)+c.nets.Size() > manyPrefixes || len(c.maps.Rows)+peers*len(c.bySet) > c.capacity.Rows/2
}

func (b *backlog) isEmpty() bool { return b == nil || b.marks.len() == 0 && len(b.queue) == 0 }

// await makes a set wait for a backlog.
func (s *set) await(b *backlog) {
	if !b.isEmpty() && !slices.Contains(s.backlogs, b) {
		s.backlogs = append(s.backlogs, b)
	}
}

// catchUp finds the classes of a backlog for as long as there are steps left. It reports whether nothing is left.
func (c *Compiler) catchUp(b *backlog, left func(netip.Prefix) bool) bool {
	for !b.isEmpty() {
		if len(b.queue) == 0 {
			b.queue, b.marks = c.within(b.marks), newPrefixSet()
		}
		if len(b.queue) == 0 {
			return true
		}
		p := b.queue[0]
		if !left(p) {
			return false
		}
		b.queue = b.queue[1:]
		if p.IsSingleIP() {
			if _, ok := c.hosts[p.Addr()]; ok {
				c.reclassifyHost(p.Addr())
			}
		} else if n, ok := c.nets.Get(p); ok && !n.unmarked() {
			c.reclassifyNet(p, n)
		} else if ok {
			c.nets.Delete(p)
			c.unrefClass(n.class)
			c.removeNet(p)
		}
	}
	return true
}

// within are the prefixes whose classes depend on what some begin or end, a prefix before those within it.
func (c *Compiler) within(marks prefixSet) []netip.Prefix {
	var out []netip.Prefix
	inside, outermost := cover(marks.nets)
	for _, p := range outermost {
		for q := range c.nets.Subnets(p) {
			out = append(out, q)
		}
	}
	host := func(addr netip.Addr) netip.Prefix { return netip.PrefixFrom(addr, addr.BitLen()) }
	if len(marks.nets) == 0 {
		for addr := range marks.hosts {
			out = append(out, host(addr))
		}
		return out
	}
	for addr := range c.hosts {
		if _, ok := marks.hosts[addr]; ok || inside.Contains(addr) {
			out = append(out, host(addr))
		}
	}
	c.work += len(c.hosts) / 16
	return out
}

// cover returns the addresses inside some networks, and those of the networks that are in no other.
func cover(nets map[netip.Prefix]struct{}) (inside *bart.Lite, outermost []netip.Prefix) {
	inside = &bart.Lite{}
	for _, p := range slices.SortedFunc(maps.Keys(nets), func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) }) {
		if !inside.LookupPrefix(p) {
			inside.Insert(p)
			outermost = append(outermost, p)
		}
	}
	return inside, outermost
}
