package node

import (
	"cmp"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// DescribePods returns what is in force for each pod, ordered by name. applied is whether the kernel's maps hold the current Revision.
func (n *Node) DescribePods(applied bool) []agentapi.Pod {
	out := []agentapi.Pod{}
	for key, p := range n.pods {
		out = append(out, n.describePod(key, p, applied))
	}
	slices.SortFunc(out, func(x, y agentapi.Pod) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}

// DescribePolicies returns how far each policy is in force, ordered by name.
func (n *Node) DescribePolicies() []agentapi.Policy {
	problems := map[policy.ID]compiler.Problem{}
	for _, p := range n.Problems() {
		problems[p.Policy] = p
	}
	out := []agentapi.Policy{}
	for key, e := range n.policies {
		described := n.describePolicy(key, e)
		if e.active != nil {
			if p, ok := problems[e.active.policy.ID]; ok {
				if !e.active.policy.Audited {
					described.State = agentapi.StateIsolating
				}
				described.Problem = fmt.Sprintf("%s: needs %d %s, of %d", p.Direction, p.Figure, p.Resource, p.Limit)
			}
		}
		out = append(out, described)
	}
	slices.SortFunc(out, func(x, y agentapi.Policy) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	return out
}

func (n *Node) describePod(key types.NamespacedName, p *pod, applied bool) agentapi.Pod {
	out := agentapi.Pod{
		Namespace: key.Namespace, Name: key.Name, UID: string(p.uid), Workload: p.workload, Addresses: p.addresses,
		Mode: string(n.opts.Mode), State: agentapi.StatePending,
	}
	if n.audits(key.Namespace) {
		out.Mode = agentapi.ModeAudit
	}
	if applied && n.synced(key.Namespace) && n.decides(key) {
		out.State = agentapi.StateInForce
	}
	if unlisted := n.locate(key).unlisted; len(unlisted) > 0 {
		out.Addresses = slices.Concat(p.addresses, unlisted)
	}
	for _, ns := range n.owned[key] {
		for _, l := range n.unseenLinks[ns.id] {
			out.Unseen = append(out.Unseen, agentapi.Interface{Name: l.Name, Kind: l.Kind})
		}
	}
	policies, audit := n.policiesOf(key, p, n.endpointsOf(key, p))
	out.Ingress, out.Egress = n.describeRules(policy.Ingress, policies), n.describeRules(policy.Egress, policies)
	out.Ingress.Audited, out.Egress.Audited = AuditedRefs(policy.Ingress, audit), AuditedRefs(policy.Egress, audit)
	return out
}

func (n *Node) describeRules(d policy.Direction, policies []*policy.Policy) agentapi.PodPolicy {
	var out agentapi.PodPolicy
	for _, p := range policies {
		if !p.Isolates[d] {
			continue
		}
		out.Isolated = out.Isolated || p.Tier == policy.TierNetworkPolicy
		out.Policies = append(out.Policies, PolicyRef(p.ID))
		for i := range p.Rules[d] {
			out.Rules = append(out.Rules, n.describeRule(p, &p.Rules[d][i]))
		}
	}
	return out
}

// AuditedRefs are the names of the audited ones among policies that have a say in a direction.
func AuditedRefs(d policy.Direction, policies []*policy.Policy) []agentapi.PolicyRef {
	var out []agentapi.PolicyRef
	for _, p := range policies {
		if p.Audited && p.Isolates[d] && p.ID.Kind != agentapi.KindEnforcingMode {
			out = append(out, PolicyRef(p.ID))
		}
	}
	return out
}

func (n *Node) describeRule(p *policy.Policy, r *policy.Rule) agentapi.Rule {
	out := agentapi.Rule{Tier: p.Tier.String(), Action: r.Action.String(), Policy: RuleRef(p, r)}
	for peer := range r.Peers.All() {
		if !peer.IsGroup() {
			out.Peers = append(out.Peers, agentapi.Peer{CIDR: peer.CIDR, Except: peer.Except, DomainNames: peer.DomainNames})
			continue
		}
		members := 0
		if g := n.groups[peer.Group]; g != nil {
			members = g.members()
		}
		out.Peers = append(out.Peers, agentapi.Peer{Group: peer.Group.String(), Addresses: members})
	}
	out.NoPorts = !r.EveryPort && len(r.Ports) == 0
	for _, port := range r.Ports {
		out.Ports = append(out.Ports, agentapi.Port{Protocol: port.Protocol.String(), First: port.First, Last: port.Last})
	}
	return out
}

func (n *Node) describePolicy(key types.NamespacedName, e *endpoint) agentapi.Policy {
	out := agentapi.Policy{PolicyEndpoint: key.Name, State: agentapi.StatePending}
	if v := e.active; v != nil {
		out.PolicyRef = PolicyRef(v.policy.ID)
		out.Newest = agentapi.Version{UID: v.policy.ID.UID, Generation: v.policy.ID.Generation}
		out.Audited = v.policy.Audited
		for podKey, p := range n.pods {
			if n.selects(v, podKey, p.labels) {
				out.Pods++
			}
		}
		if !v.inForce.IsZero() {
			out.Realised = &agentapi.Realised{Version: out.Newest, Since: v.inForce, LatencySeconds: v.inForce.Sub(v.seen).Seconds()}
			out.State = agentapi.StateInForce
		}
	}
	if v := e.waiting; v != nil {
		out.PolicyRef = PolicyRef(v.policy.ID)
		out.Newest = agentapi.Version{UID: v.policy.ID.UID, Generation: v.policy.ID.Generation}
		out.State = agentapi.StatePending
		for _, g := range v.groups {
			if n.groups[g] == nil || !n.groups[g].completed {
				out.WaitingFor = append(out.WaitingFor, g.String())
			}
		}
		slices.Sort(out.WaitingFor)
		out.WaitingFor = slices.Compact(out.WaitingFor)
	}
	return out
}

// PodStates counts pods by mode and by state: pending, open (no policy isolates them) and isolated.
func (n *Node) PodStates() map[[2]string]int {
	out := map[[2]string]int{}
	for _, mode := range []string{string(n.opts.Mode), agentapi.ModeAudit} {
		for _, state := range []string{"pending", "open", "isolated"} {
			out[[2]string{mode, state}] = 0
		}
	}
	for key, p := range n.pods {
		mode, state := string(n.opts.Mode), "pending"
		if n.audits(key.Namespace) {
			mode = agentapi.ModeAudit
		}
		if n.synced(key.Namespace) {
			state = "open"
			for _, addr := range p.addresses {
				if n.compiler.Maps().Pods[addr].Sets != [2]compiler.SetID{} {
					state = "isolated"
				}
			}
		}
		out[[2]string{mode, state}]++
	}
	return out
}

// Counts are the sizes of a Node. Groups are those that policies use, and Resolvers the trusted ones.
type Counts struct {
	Pods, Policies, WaitingPolicies, Groups, Resolvers int
}

// Counts returns the sizes of the Node.
func (n *Node) Counts() Counts {
	groups := 0
	for key := range n.wanted {
		if _, ok := n.resolversPort(key); !ok {
			groups++
		}
	}
	return Counts{Pods: len(n.pods), Policies: len(n.policies), WaitingPolicies: len(n.waiting), Groups: groups, Resolvers: len(n.resolvers)}
}

// PoliciesInForce are the policies that the compiler has a version of, and those of the mode and of terminating namespaces.
func (n *Node) PoliciesInForce() map[agentapi.PolicyRef]bool {
	out := map[agentapi.PolicyRef]bool{}
	for _, p := range n.opts.Mode.withDefaults(nil) {
		out[PolicyRef(p.ID)] = true
	}
	for _, ns := range n.namespaces {
		if ns.bereft {
			out[PolicyRef(terminating[policy.Ingress].ID)] = true
		}
	}
	for _, e := range n.policies {
		if e.active != nil {
			out[PolicyRef(e.active.policy.ID)] = true
		}
	}
	return out
}

// PolicyRef is a policy's name in the agent's API.
func PolicyRef(id policy.ID) agentapi.PolicyRef {
	return agentapi.PolicyRef{Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
}

// RuleRef is a rule's name in the agent's API.
func RuleRef(p *policy.Policy, r *policy.Rule) agentapi.RuleRef {
	return agentapi.RuleRef{PolicyRef: PolicyRef(p.ID), RuleName: r.Name, Rules: slices.Clone(r.Origin)}
}
