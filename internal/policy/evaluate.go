package policy

import (
	"net/netip"
)

// Flow is the first packet of a connection as its client sent it and as the server will receive it: after DNAT, before SNAT.
type Flow struct {
	Source, Destination netip.Addr
	Protocol            Protocol
	// Port is the destination port; 0 where the protocol has none.
	Port uint16
}

// Peer is the address that rules of direction d match: who sends for Ingress, who receives for Egress.
func (f Flow) Peer(d Direction) netip.Addr {
	if d == Ingress {
		return f.Source
	}
	return f.Destination
}

// Groups knows who is in a group.
type Groups interface {
	// Contains reports whether addr is one of the group's addresses. An unknown group has none.
	Contains(group GroupKey, addr netip.Addr) bool
}

// Verdict is a decision about one direction of a flow, and what made it.
type Verdict struct {
	// Action is Allow or Deny.
	Action Action
	// Tier in which the decision fell. Where nothing selects the pod it is TierBaseline, Policy is nil and Action is Allow.
	Tier Tier
	// Policy that decided; nil for a default: the refusal of an isolated pod, or the acceptance of one that is not.
	Policy *Policy
	// Rule is the index in Policy.Rules of the rule that decided.
	Rule int
}

// Evaluate judges one direction of a flow for a pod.
//
// policies are those that select the pod, in the order of Compare, with named ports resolved (see ForPod). A flow passes when
// the source's Egress and the destination's Ingress both accept; an end that is no pod of the cluster accepts.
func Evaluate(d Direction, policies []*Policy, f Flow, groups Groups) Verdict {
	isolated := false // by a policy of the tier that the loop is in
	tier := TierAdmin
	passed := false // the Admin tier said Pass: what is left of it is skipped
	for _, p := range policies {
		if p.Tier != tier {
			// "pods are isolated if at least one NetworkPolicy selects them": what none of those accepts ends here
			if tier == TierNetworkPolicy && isolated {
				break
			}
			tier = p.Tier
		}
		if !p.Isolates[d] || (passed && tier == TierAdmin) {
			continue
		}
		isolated = isolated || tier == TierNetworkPolicy
		for i := range p.Rules[d] {
			r := &p.Rules[d][i]
			if !r.Matches(f.Peer(d), f.Protocol, f.Port, groups) {
				continue
			}
			if r.Action == Pass {
				passed = true
				break
			}
			return Verdict{Action: r.Action, Tier: tier, Policy: p, Rule: i}
		}
	}
	if isolated {
		return Verdict{Action: Deny, Tier: TierNetworkPolicy}
	}
	return Verdict{Action: Allow, Tier: TierBaseline}
}

// Matches reports whether the rule is about this peer and port.
func (r *Rule) Matches(peer netip.Addr, protocol Protocol, port uint16, groups Groups) bool {
	return r.matchesPeer(peer, groups) && r.matchesPort(protocol, port)
}

func (r *Rule) matchesPeer(addr netip.Addr, groups Groups) bool {
	if r.Everyone {
		return true
	}
	for i := range r.Peers {
		if r.Peers[i].Contains(addr, groups) {
			return true
		}
	}
	return false
}

// Contains reports whether addr is one of the peer's addresses.
func (p *Peer) Contains(addr netip.Addr, groups Groups) bool {
	if !p.CIDR.IsValid() {
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

func (r *Rule) matchesPort(protocol Protocol, port uint16) bool {
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
