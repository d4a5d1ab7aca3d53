package model

import (
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Alternative is the verdict for some of the addresses that a pod may have.
type Alternative struct {
	reference.Decision[networkingv1.NetworkPolicy]
	Parts []Part // empty where the address is known
}

// Judge evaluates one direction of a flow as Evaluate does, for all addresses that the peer may have if its own is not known. Alternatives are
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
	v := e.Evaluate(d, f)
	addr := f.Peer(d)
	peer := e.byAddress[addr]
	if len(v.Isolating) == 0 || !e.isInvented(addr) {
		return []Alternative{{Decision: v}}
	}
	var rules []ruleOf
	var blocks []netip.Prefix
	for _, np := range v.Isolating {
		for i, r := range policy.NetworkPolicyRules(d, np) {
			rules = append(rules, ruleOf{newRule(np.Namespace, r, 1), reference.Decision[networkingv1.NetworkPolicy]{
				Action: policy.Allow, Tier: v.Tier, Isolating: v.Isolating, Policy: np, Rule: i}})
			blocks = append(blocks, blocksOfRule(&r)...)
		}
	}
	p := &place{addr: addr}
	if peer != nil {
		p.pod = &peer.Pod
		if ns := e.namespaces[peer.Namespace]; ns != nil {
			p.namespace = ns.Labels
		}
	}
	p.parts = e.partsOf(space, blocks, holes...)
	to := p
	if d == policy.Ingress {
		to = &place{addr: f.Destination}
		if target := e.byAddress[f.Destination]; target != nil {
			to.pod = &target.Pod
		}
	}
	var out []Alternative
	port := Port{f.Protocol, f.Port}
	for i, part := range p.parts.list {
		is := reference.Decision[networkingv1.NetworkPolicy]{Action: policy.Deny, Tier: v.Tier, Isolating: v.Isolating}
		for _, r := range rules {
			if r.matchesPeer(p).has(i) && r.matchesPort(to, port) {
				is = r.verdict
				break
			}
		}
		k := slices.IndexFunc(out, func(a Alternative) bool { return a.Policy == is.Policy && a.Rule == is.Rule })
		if k < 0 {
			k = len(out)
			out = append(out, Alternative{Decision: is})
		}
		out[k].Parts = append(out[k].Parts, part)
	}
	if len(out) == 1 {
		out[0].Parts = nil
	}
	for i := range out {
		out[i].Parts = join(out[i].Parts)
	}
	return out
}

// ruleOf a policy, and the verdict where it is the first that allows.
type ruleOf struct {
	*rule
	verdict reference.Decision[networkingv1.NetworkPolicy]
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
