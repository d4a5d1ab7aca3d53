package model

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Alternative is the verdict for some of the addresses that a pod may have.
type Alternative struct {
	reference.ClusterDecision
	Parts []Part // empty where the address is known
}

// Judge decides about one direction of a flow as Decide does, for all addresses that the peer may have if its own is not known. Alternatives are
// by their verdicts: one, where the address does not matter.
func (e *Evaluator) Judge(d policy.Direction, f policy.Flow) []Alternative {
	addr := f.Peer(d)
	return e.judge(d, f, e.cluster.possible(addr.Is4(), e.byAddress[addr] == nil))
}

// AssumesPrivate reports whether a verdict of Judge is only right because pods are taken to have private addresses.
func (e *Evaluator) AssumesPrivate(d policy.Direction, f policy.Flow, alternatives []Alternative) bool {
	addr := f.Peer(d)
	if addr.Is6() || len(e.cluster.podCIDRs(true)) > 0 || !e.isInvented(addr) {
		return false
	}
	return slices.ContainsFunc(e.judge(d, f, anyIPv4, noPods...), func(a Alternative) bool { return a.Action != alternatives[0].Action })
}

func (e *Evaluator) judge(d policy.Direction, f policy.Flow, space []netip.Prefix, holes ...netip.Prefix) []Alternative {
	v := e.Decide(d, f)
	addr := f.Peer(d)
	if !e.isInvented(addr) {
		return []Alternative{{ClusterDecision: v}}
	}
	isolating := e.Evaluate(d, f).Isolating
	self, blocks := e.selfOf(d, f, isolating)
	if self == nil {
		return []Alternative{{ClusterDecision: v}}
	}
	p := &place{addr: addr, parts: e.partsOf(space, blocks, holes...)}
	if peer := e.byAddress[addr]; peer != nil {
		p.pod = &peer.Pod
		if ns := e.namespaces[peer.Namespace]; ns != nil {
			p.namespace = ns.Labels
		}
	}
	var out []Alternative
	for i, part := range p.parts.list {
		is := self.decide(d, p, i, Port{f.Protocol, f.Port}, isolating)
		k := slices.IndexFunc(out, func(a Alternative) bool { return sameRules(&a.ClusterDecision, &is) })
		if k < 0 {
			k = len(out)
			out = append(out, Alternative{ClusterDecision: is})
		}
		out[k].Parts = append(out[k].Parts, part)
	}
	switch len(out) {
	case 0:
		return []Alternative{{ClusterDecision: v}}
	case 1:
		out[0].Parts = nil
	}
	for i := range out {
		out[i].Parts = join(out[i].Parts)
	}
	return out
}

// selfOf is the place of the pod whose policies decide, with their rules, and all blocks that these name; nil if no policy selects it.
func (e *Evaluator) selfOf(d policy.Direction, f policy.Flow, isolating []*networkingv1.NetworkPolicy) (self *place, blocks []netip.Prefix) {
	addr := f.Source
	if d == policy.Ingress {
		addr = f.Destination
	}
	pod := e.byAddress[addr]
	if pod == nil {
		return nil, nil
	}
	self = &place{index: 1, addr: addr, pod: &pod.Pod}
	if ns := e.namespaces[pod.Namespace]; ns != nil {
		self.namespace = ns.Labels
	}
	selected := len(isolating) > 0
	self.isolated[d] = selected
	for _, np := range isolating {
		for i, r := range netpol.Rules(d, np) {
			self.rules[d][policy.TierNetworkPolicy] = append(self.rules[d][policy.TierNetworkPolicy], newRule(np, i, r, 2))
			blocks = append(blocks, blocksOfRule(&r)...)
		}
	}
	for _, p := range InOrder(e.cluster.ClusterPolicies) {
		c := newClusterPolicy(p, e.cluster, 2)
		if !c.subject.Matches(netip.Addr{}, self.pod, self.namespace) {
			continue
		}
		selected = true
		self.rules[d][c.tier] = append(self.rules[d][c.tier], c.rules[d]...)
		for _, r := range c.rules[d] {
			for _, m := range r.blocks {
				blocks = append(blocks, m.(*clusterPeer).blocks()...)
			}
		}
	}
	if !selected {
		return nil, nil
	}
	return self, blocks
}

// decide about the i-th part of the peer's possible addresses, as reference.Cluster does about one address.
func (p *place) decide(d policy.Direction, peer *place, i int, port Port, isolating []*networkingv1.NetworkPolicy) reference.ClusterDecision {
	out := reference.ClusterDecision{Action: policy.Allow, Tier: policy.TierBaseline}
	if r := p.first(policy.TierAdmin, d, peer, i, port); r != nil {
		if out.Admin = r.cluster; r.action != policy.Pass {
			out.Action, out.Tier = r.action, policy.TierAdmin
			return out
		}
	}
	np := &reference.Decision[networkingv1.NetworkPolicy]{Action: policy.Allow, Tier: policy.TierBaseline, Isolating: isolating}
	out.NetworkPolicy = np
	if p.isolated[d] {
		np.Action, np.Tier = policy.Deny, policy.TierNetworkPolicy
		if r := p.first(policy.TierNetworkPolicy, d, peer, i, port); r != nil {
			np.Action, np.Policy, np.Rule = policy.Allow, r.policy, r.index
		}
		out.Action, out.Tier = np.Action, np.Tier
		return out
	}
	if r := p.first(policy.TierBaseline, d, peer, i, port); r != nil {
		if out.Baseline = r.cluster; r.action == policy.Deny {
			out.Action = policy.Deny
		}
	}
	return out
}

// sameRules reports whether the same rules decided.
func sameRules(a, b *reference.ClusterDecision) bool {
	cluster := func(a, b *reference.ClusterRule) bool {
		return a == b || a != nil && b != nil && a.Policy == b.Policy && a.Index == b.Index
	}
	np := func(d *reference.ClusterDecision) (*networkingv1.NetworkPolicy, int) {
		if d.NetworkPolicy == nil {
			return nil, -1
		}
		return d.NetworkPolicy.Policy, d.NetworkPolicy.Rule
	}
	p, i := np(a)
	q, j := np(b)
	return a.Action == b.Action && cluster(a.Admin, b.Admin) && cluster(a.Baseline, b.Baseline) && p == q && i == j
}

// isInvented reports whether an address was given to a pod, or to one of the host's network, whose own is not known.
func (e *Evaluator) isInvented(addr netip.Addr) bool {
	if p := e.byAddress[addr]; p != nil {
		return p.Invented
	}
	p := e.onHosts[addr]
	return p != nil && p.Invented
}

// partsOf a space, as blocks tell its addresses apart, without those of the holes, of Services and of pods whose addresses are known.
func (e *Evaluator) partsOf(space, blocks []netip.Prefix, holes ...netip.Prefix) *possibleParts {
	holes = append(holes, e.cluster.Addressing.ServiceCIDRs...)
	return &possibleParts{slices.DeleteFunc(Parts(space, slices.Concat(blocks, holes)), func(part Part) bool {
		if p := e.byAddress[part.First]; part.First == part.Last && p != nil && !p.Invented {
			return true
		}
		return slices.ContainsFunc(holes, func(h netip.Prefix) bool { return h.Contains(part.First) })
	})}
}

// bothParts are the possible parts of IPv4 and IPv6 addresses; nil where all addresses are known.
type bothParts [2]*possibleParts

// possibleParts of pods' addresses of both families.
func (e *Evaluator) possibleParts(blocks []netip.Prefix) (out bothParts) {
	if !e.hasInvented() {
		return out
	}
	for f, is4 := range [2]bool{true, false} {
		out[f] = e.partsOf(e.cluster.possible(is4, false), blocks)
	}
	return out
}

// wideParts are as possibleParts, for pods that may have public addresses too. They are nil where that makes no difference: the pods'
// addresses or their blocks are known, or there are no blocks.
func (e *Evaluator) wideParts(blocks []netip.Prefix) (out bothParts) {
	is4 := func(p netip.Prefix) bool { return p.Addr().Is4() }
	if !e.hasInvented() || !e.cluster.Addressing.IPv4 || len(e.cluster.podCIDRs(true)) > 0 || !slices.ContainsFunc(blocks, is4) {
		return out
	}
	return bothParts{e.partsOf(anyIPv4, blocks, noPods...), e.partsOf(e.cluster.possible(false, false), blocks)}
}

func (e *Evaluator) hasInvented() bool {
	return slices.ContainsFunc(e.cluster.Pods, func(p Pod) bool { return p.Invented })
}
