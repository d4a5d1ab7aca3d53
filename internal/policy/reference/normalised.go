package reference

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// Groups reports which addresses are in a group.
type Groups interface {
	// Contains reports whether addr is one of the group's addresses. An unknown group has none.
	Contains(group policy.GroupKey, addr netip.Addr) bool
}

// Audit is what would become of one direction of a flow if audited policies were enforced, beside what becomes of it.
type Audit struct {
	// Enforced is the decision of the enforced policies: what becomes of the flow.
	Enforced Decision[policy.Policy]
	// All is the decision of all policies. It is that of the enforced ones where no audited policy has a say in the direction.
	All Decision[policy.Policy]
}

// Differs reports whether the flow would become allowed or denied.
func (a *Audit) Differs() bool { return a.Enforced.Action != a.All.Action }

// EvaluateAudit decides about one direction of a flow for a pod of which some policies may be audited. See EvaluateWithNames.
func EvaluateAudit(d policy.Direction, policies []*policy.Policy, f policy.Flow, groups Groups, names Names) Audit {
	return Audit{
		Enforced: EvaluateWithNames(d, policy.Enforced(policies), f, groups, names),
		All:      EvaluateWithNames(d, policies, f, groups, names),
	}
}

// Evaluate decides about one direction of a flow for a pod, as if no policy were audited.
//
// policies are those that select the pod, in the order of policy.Compare, with named ports resolved (see policy.Policy.ForPod).
// A flow is allowed if the source's Egress and the destination's Ingress both allow it. An end that is not a pod of the cluster
// allows it.
//
// No address is known of any DNS name: see EvaluateWithNames.
func Evaluate(d policy.Direction, policies []*policy.Policy, f policy.Flow, groups Groups) Decision[policy.Policy] {
	return EvaluateWithNames(d, policies, f, groups, nil)
}

// EvaluateWithNames is Evaluate at a time when names are known: a peer of a rule with a domain name contains the addresses of the names that it
// covers.
func EvaluateWithNames(d policy.Direction, policies []*policy.Policy, f policy.Flow, groups Groups, names Names) Decision[policy.Policy] {
	var isolating []*policy.Policy
	for _, p := range policies {
		if p.Tier == policy.TierNetworkPolicy && p.Isolates[d] {
			isolating = append(isolating, p)
		}
	}
	passed := false // a rule of the Admin tier passed: the rest of that tier is skipped
	for _, p := range policies {
		switch {
		case !p.Isolates[d]:
			continue
		case p.Tier == policy.TierAdmin && passed:
			continue
		case p.Tier == policy.TierBaseline && len(isolating) > 0: // an isolated pod is decided about before this tier
			continue
		}
		for i := range p.Rules[d] {
			r := &p.Rules[d][i]
			if !matchesPeer(r, f.Peer(d), groups, names) || !matchesPort(r, f.Protocol, f.Port) {
				continue
			}
			if r.Action == policy.Pass {
				passed = true
				break
			}
			return Decision[policy.Policy]{Action: r.Action, Tier: p.Tier, Isolating: isolating, Policy: p, Rule: i}
		}
	}
	if len(isolating) > 0 { // "pods are isolated if at least one NetworkPolicy selects them"
		return Decision[policy.Policy]{Action: policy.Deny, Tier: policy.TierNetworkPolicy, Isolating: isolating}
	}
	return Decision[policy.Policy]{Action: policy.Allow, Tier: policy.TierBaseline}
}

func matchesPeer(r *policy.Rule, addr netip.Addr, groups Groups, names Names) bool {
	if r.Everyone {
		return true
	}
	for peer := range r.Peers.All() {
		if Contains(&peer, addr, groups) || names.hasAny(peer.DomainNames, addr) {
			return true
		}
	}
	return false
}

// Contains reports whether addr is one of a peer's addresses, which do not include those of its names.
func Contains(p *policy.Peer, addr netip.Addr, groups Groups) bool {
	if p.IsGroup() {
		return groups.Contains(p.Group, addr)
	}
	if !p.CIDR.Contains(addr) {
		return false
	}
	for _, e := range p.Except {
		if e.Contains(addr) {
			return false
		}
	}
	return true
}

func matchesPort(r *policy.Rule, protocol policy.Protocol, port uint16) bool {
	if r.EveryPort {
		return true
	}
	for _, pr := range r.Ports {
		if pr.Name == "" && pr.Protocol == protocol && pr.First <= port && port <= pr.Last {
			return true
		}
	}
	return false
}
