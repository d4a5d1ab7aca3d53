package model

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// move is where a pod's address was and is.
type move struct {
	addr     netip.Addr
	old, now *place
	// moved: it may be judged otherwise than before as a peer; ruled, by direction: by its own policies.
	moved bool
	ruled [2]bool
	pods  int
}

// movesOf are the different moves of a workload's addresses.
func movesOf(old, now *Reach, w Workload, changed map[string]bool) []move {
	was := addresses(old.evaluator, w)
	var out []move
	for addr, pod := range addresses(now.evaluator, w) {
		m := move{addr: addr, now: now.place(addr, pod), pods: 1}
		if p, ok := was[addr]; ok {
			m.old = old.place(addr, p)
		} else if like := old.groups[w].like(m.now); like != nil { // a pod more: as the others were
			m.old = like
		} else {
			continue
		}
		i := slices.IndexFunc(out, func(n move) bool { return n.old == m.old && n.now == m.now })
		if i >= 0 {
			out[i].pods++
			continue
		}
		m.moved = !sameLooks(m.old, m.now)
		for _, d := range policy.Directions {
			m.ruled[d] = m.moved || m.old.isolated[d] != m.now.isolated[d] || m.now.pod != nil && changed[m.now.pod.Namespace] || !sameTiers(m.old, m.now, d, changed)
		}
		out = append(out, m)
	}
	return out
}

// like is a place of the same family.
func (g *group) like(p *place) *place {
	for _, s := range g.places {
		if s.addr.Is4() == p.addr.Is4() {
			return s.place
		}
	}
	return nil
}

// addresses of a workload, each with the pod that it is judged as: another workload's, where both have the address.
func addresses(e *Evaluator, w Workload) map[netip.Addr]*Pod {
	out, c := map[netip.Addr]*Pod{}, e.Cluster()
	if w.Kind == "Address" {
		out[netip.MustParseAddr(w.Name)] = nil
		return out
	}
	i, _ := slices.BinarySearchFunc(c.Pods, w, func(p Pod, w Workload) int { return p.Workload.Compare(w) })
	for ; i < len(c.Pods) && c.Pods[i].Workload == w; i++ {
		if !policy.IsPeer(&c.Pods[i].Pod) {
			continue
		}
		for _, a := range policy.PodAddresses(&c.Pods[i].Pod) {
			out[a] = e.PodAt(a)
		}
	}
	return out
}

// sameLooks reports whether a place's pod and namespace look the same to every selector.
func sameLooks(a, b *place) bool {
	if a.pod == nil || b.pod == nil {
		return a.pod == b.pod
	}
	return equalJSON(a.pod.Labels, b.pod.Labels) && equalJSON(a.namespace, b.namespace) &&
		slices.Equal(policy.ContainerPorts(a.pod), policy.ContainerPorts(b.pod))
}

// sameTiers reports whether the same rules of ClusterNetworkPolicies apply to both, in the same order and about the same addresses.
func sameTiers(a, b *place, d policy.Direction, changed map[string]bool) bool {
	for _, tier := range [...]policy.Tier{policy.TierAdmin, policy.TierBaseline} {
		if !slices.EqualFunc(a.rules[d][tier], b.rules[d][tier], func(r, s *rule) bool {
			return r.cluster.Policy.Name == s.cluster.Policy.Name && r.index == s.index && !changed[Describe(ClusterPolicyKind, r.cluster.Policy)] &&
				slices.EqualFunc(r.blocks, s.blocks, func(m, n matcher) bool { return m.(*clusterPeer).String() == n.(*clusterPeer).String() })
		}) {
			return false
		}
	}
	return true
}

func equalJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return bytes.Equal(x, y)
}

func pair(from, to Workload, sources, destinations []move) Pair {
	p := Pair{From: from, To: to}
	unchanged := false
	for i, a := range sources {
		for j, b := range destinations {
			if a.addr.Is4() != b.addr.Is4() || a.now.assumed && b.now.assumed || from == to && i == j && b.pods == 1 {
				continue
			}
			if !a.ruled[policy.Egress] && !b.ruled[policy.Ingress] && !a.moved && !b.moved {
				unchanged = true
				continue
			}
			unchanged = p.compare(a, b) || unchanged
		}
	}
	p.Some = unchanged
	return p
}

// compare the ports on which a reached b and reaches it now. It reports whether they are the same.
func (p *Pair) compare(a, b move) (unchanged bool) {
	unchanged = true
	for _, i := range intervals([2]*place{a.old, b.old}, [2]*place{a.now, b.now}) {
		port := i.port()
		was := allowed{a.old.accepts(policy.Egress, b.old, port), b.old.accepts(policy.Ingress, a.old, port)}
		is := allowed{a.now.accepts(policy.Egress, b.now, port), b.now.accepts(policy.Ingress, a.now, port)}
		if some, all := is.minus(was); some {
			p.Gained.add(i)
			p.Depends, unchanged = p.Depends || !all, false
		}
		if some, all := was.minus(is); some {
			p.Lost.add(i)
			p.Depends, unchanged = p.Depends || !all, false
		}
	}
	return unchanged
}

// allowed are the parts of the destination's addresses that egress allows, and those of the source's that ingress allows.
type allowed struct{ egress, ingress bits }

func (a allowed) never() bool { return a.egress.none() || a.ingress.none() }

// minus reports whether a allows what b does not for some of the addresses, and whether it does so for all.
func (a allowed) minus(b allowed) (some, all bool) {
	if a.never() || !b.never() && a.egress.within(b.egress) && a.ingress.within(b.ingress) {
		return false, false
	}
	return true, a.egress.all && a.ingress.all && b.never()
}
