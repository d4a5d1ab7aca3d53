package agent

import (
	"cmp"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// Pods says what is in force for each pod of the node.
func (a *Agent) Pods() []agentapi.Pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	settled := a.settled()
	out := []agentapi.Pod{}
	for key, p := range a.state.pods {
		out = append(out, a.state.describePod(key, p, settled))
	}
	slices.SortFunc(out, func(x, y agentapi.Pod) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// Policies says how far each policy that this node knows is in force.
func (a *Agent) Policies() []agentapi.Policy {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []agentapi.Policy{}
	for key, e := range a.state.policies {
		out = append(out, a.state.describePolicy(key, e))
	}
	slices.SortFunc(out, func(x, y agentapi.Policy) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// settled reports whether the kernel's maps hold all that the state says; with the lock held.
func (a *Agent) settled() bool {
	return a.inForce.Load() && a.changed.IsZero() && a.failure.Load() == nil
}

func (s *state) describePod(key types.NamespacedName, p *pod, settled bool) agentapi.Pod {
	out := agentapi.Pod{
		Namespace: key.Namespace, Name: key.Name, UID: string(p.uid), Workload: p.workload, Addresses: p.addresses,
		Mode: string(s.mode), State: agentapi.StatePending,
	}
	ns := s.namespaces[key.Namespace]
	if ns != nil && s.audits(ns) {
		out.Mode = agentapi.ModeAudit
	}
	if settled && ns != nil && ns.known && s.judges(key) {
		out.State = agentapi.StateInForce
	}
	policies := s.policiesOf(key, p)
	out.Ingress, out.Egress = s.describeRules(policy.Ingress, policies), s.describeRules(policy.Egress, policies)
	return out
}

func (s *state) describeRules(d policy.Direction, policies []*policy.Policy) agentapi.PodPolicy {
	var out agentapi.PodPolicy
	for _, p := range policies {
		if !p.Isolates[d] {
			continue
		}
		out.Isolated = out.Isolated || p.Tier == policy.TierNetworkPolicy
		out.Policies = append(out.Policies, policyRef(p.ID))
		for i := range p.Rules[d] {
			out.Rules = append(out.Rules, s.describeRule(p, &p.Rules[d][i]))
		}
	}
	return out
}

func (s *state) describeRule(p *policy.Policy, r *policy.Rule) agentapi.Rule {
	out := agentapi.Rule{Tier: p.Tier.String(), Action: r.Action.String(), Policy: ruleRef(p, r)}
	for _, peer := range r.Peers {
		if peer.CIDR.IsValid() {
			out.Peers = append(out.Peers, agentapi.Peer{CIDR: peer.CIDR, Except: peer.Except})
			continue
		}
		members := 0
		if g := s.groups[peer.Group]; g != nil {
			for _, told := range g.told {
				members += len(told)
			}
		}
		out.Peers = append(out.Peers, agentapi.Peer{Group: peer.Group.String(), Addresses: members})
	}
	out.NoPorts = !r.EveryPort && len(r.Ports) == 0
	for _, port := range r.Ports {
		out.Ports = append(out.Ports, agentapi.Port{Protocol: port.Protocol.String(), First: port.First, Last: port.Last})
	}
	return out
}

func (s *state) describePolicy(key types.NamespacedName, e *endpoint) agentapi.Policy {
	out := agentapi.Policy{PolicyEndpoint: key.Name, State: agentapi.StatePending}
	if v := e.active; v != nil {
		out.PolicyRef = policyRef(v.policy.ID)
		out.Newest = agentapi.Version{UID: v.policy.ID.UID, Generation: v.policy.ID.Generation}
		for podKey, p := range s.pods {
			if podKey.Namespace == key.Namespace && v.selector.Matches(p.labels) {
				out.Pods++
			}
		}
		if !v.inForce.IsZero() {
			out.Realised = &agentapi.Realised{Version: out.Newest, Since: v.inForce, LatencySeconds: v.inForce.Sub(v.seen).Seconds()}
			out.State = agentapi.StateInForce
		}
	}
	if pe := e.waiting; pe != nil {
		ref := pe.Spec.PolicyRef
		out.PolicyRef = agentapi.PolicyRef{Kind: ref.Kind, Namespace: key.Namespace, Name: ref.Name}
		out.Newest = agentapi.Version{UID: string(ref.UID), Generation: ref.Generation}
		out.State = agentapi.StatePending
		for _, g := range policy.GroupKeys(key.Namespace, s.sharedNamespace, pe.Spec.Ingress, pe.Spec.Egress) {
			if s.groups[g] == nil || !s.groups[g].whole {
				out.WaitingFor = append(out.WaitingFor, g.String())
			}
		}
		slices.Sort(out.WaitingFor)
		out.WaitingFor = slices.Compact(out.WaitingFor)
	}
	return out
}

// podStates counts pods by mode and by state: pending, open (no policy isolates it) and isolated.
func (s *state) podStates() map[[2]string]int {
	out := map[[2]string]int{}
	for _, mode := range []string{string(s.mode), agentapi.ModeAudit} {
		for _, state := range []string{"pending", "open", "isolated"} {
			out[[2]string{mode, state}] = 0
		}
	}
	for key, p := range s.pods {
		mode, state := string(s.mode), "pending"
		ns := s.namespaces[key.Namespace]
		if ns != nil && s.audits(ns) {
			mode = agentapi.ModeAudit
		}
		if ns != nil && ns.known {
			state = "open"
			for _, addr := range p.addresses {
				if s.compiler.Maps().Pods[addr].Sets != [2]compiler.SetID{} {
					state = "isolated"
				}
			}
		}
		out[[2]string{mode, state}]++
	}
	return out
}
