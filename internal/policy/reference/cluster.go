package reference

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
)

// Cluster evaluates ClusterNetworkPolicies and NetworkPolicies together, straight from the API objects and in the words of the
// documentation of policy.networking.k8s.io/v1alpha2 (module sigs.k8s.io/network-policy-api v0.3.0).
type Cluster struct {
	NetworkPolicies
	Nodes           []corev1.Node
	ClusterPolicies []cnp.ClusterNetworkPolicy
}

// ClusterDecision is what all tiers decide about one direction of a flow.
type ClusterDecision struct {
	// Action is Allow or Deny.
	Action policy.Action
	// Tier that decided. It is TierBaseline if nothing decided and the flow is allowed by default.
	Tier policy.Tier
	// Admin and Baseline are the rules that matched in these tiers, nil if none did or the tier was not reached.
	Admin, Baseline *ClusterRule
	// NetworkPolicy is what the tier of NetworkPolicies says, nil if it was not reached. It decides only for pods that it isolates.
	NetworkPolicy *Decision[networkingv1.NetworkPolicy]
}

// Allowed reports whether the action is Allow.
func (d *ClusterDecision) Allowed() bool { return d.Action == policy.Allow }

// ClusterRule is a rule of a ClusterNetworkPolicy, in the direction that was asked about.
type ClusterRule struct {
	Policy *cnp.ClusterNetworkPolicy
	Index  int
	Action policy.Action
	// Unreadable is true for a rule with a peer or a protocol that this version does not know. Deny and Pass then deny all.
	Unreadable bool
}

// Allows reports whether a flow is allowed: both directions must allow it. A pod's connection to its own address is.
func (c *Cluster) Allows(f policy.Flow) bool {
	if f.Source == f.Destination {
		return true
	}
	out, in := c.Evaluate(policy.Egress, f), c.Evaluate(policy.Ingress, f)
	return out.Allowed() && in.Allowed()
}

// Evaluate decides about one direction of a flow. Admin decides first; then NetworkPolicies, for pods that they isolate; then
// Baseline. "If a given connection wasn't allowed or denied by any of the tiers, the default kubernetes policy is applied, which
// says that all pods can communicate with each other."
//
// A node reaches its own pods whatever policies say: probes come from there. A pod reaches its own node unless a cluster policy
// denies it, because NetworkPolicies do not apply to that traffic.
func (c *Cluster) Evaluate(d policy.Direction, f policy.Flow) ClusterDecision {
	self, peer := f.Source, f.Destination
	if d == policy.Ingress {
		self, peer = peer, self
	}
	out := ClusterDecision{Action: policy.Allow, Tier: policy.TierBaseline}
	pod := c.PodAt(self)
	if pod == nil {
		return out
	}
	ownNode := c.isOwnNode(pod, peer)
	if ownNode && d == policy.Ingress {
		return out
	}
	if out.Admin = c.first(policy.TierAdmin, d, pod, f); out.Admin != nil && out.Admin.Action != policy.Pass {
		out.Action, out.Tier = out.Admin.Action, policy.TierAdmin
		return out
	}
	np := c.NetworkPolicies.Evaluate(d, f)
	if ownNode && len(np.Isolating) > 0 {
		np.Action, np.Policy, np.Rule = policy.Allow, nil, 0
	}
	out.NetworkPolicy = &np
	if len(np.Isolating) > 0 {
		out.Action, out.Tier = np.Action, policy.TierNetworkPolicy
		return out
	}
	if out.Baseline = c.first(policy.TierBaseline, d, pod, f); out.Baseline != nil && out.Baseline.Action == policy.Deny {
		out.Action = policy.Deny
	}
	return out
}

// first returns the first rule of a tier that matches: of the policies with the pod as subject, in ascending priority, and in
// each the rules in their order. Where priorities are equal, the policies' names decide (the API leaves that open).
func (c *Cluster) first(tier policy.Tier, d policy.Direction, pod *corev1.Pod, f policy.Flow) *ClusterRule {
	name := cnp.AdminTier
	if tier == policy.TierBaseline {
		name = cnp.BaselineTier
	}
	var selecting []*cnp.ClusterNetworkPolicy
	for i := range c.ClusterPolicies {
		p := &c.ClusterPolicies[i]
		if !c.EnforceAudited && policy.IsLabelledAudit(p.Labels) {
			continue
		}
		if p.Spec.Tier == name && c.isSubject(&p.Spec.Subject, pod) {
			selecting = append(selecting, p)
		}
	}
	slices.SortFunc(selecting, func(a, b *cnp.ClusterNetworkPolicy) int {
		if a.Spec.Priority != b.Spec.Priority {
			return int(a.Spec.Priority) - int(b.Spec.Priority)
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, p := range selecting {
		for i, r := range clusterRulesOf(d, p) {
			if out, ok := c.matchClusterRule(tier, &r, f, f.Peer(d)); ok {
				out.Policy, out.Index = p, i
				return out
			}
		}
	}
	return nil
}

// isSubject reports whether a policy selects a pod. "Host-networked pods are not included in subject selection": PodAt never
// returns one.
func (c *Cluster) isSubject(s *cnp.ClusterNetworkPolicySubject, pod *corev1.Pod) bool {
	switch {
	case s.Namespaces != nil:
		return c.selectsNamespace(s.Namespaces, pod.Namespace)
	case s.Pods != nil:
		return c.selectsNamespace(&s.Pods.NamespaceSelector, pod.Namespace) && selects(&s.Pods.PodSelector, pod.Labels)
	}
	return false // a kind of subject that is not known: no pod, rather than every pod of the cluster
}

// clusterRule is a rule of either direction.
type clusterRule struct {
	action    cnp.ClusterNetworkPolicyRuleAction
	peers     []cnp.ClusterNetworkPolicyEgressPeer
	protocols []cnp.ClusterNetworkPolicyProtocol
}

func clusterRulesOf(d policy.Direction, p *cnp.ClusterNetworkPolicy) (out []clusterRule) {
	if d == policy.Egress {
		for _, r := range p.Spec.Egress {
			out = append(out, clusterRule{r.Action, r.To, r.Protocols})
		}
		return out
	}
	for _, r := range p.Spec.Ingress {
		rule := clusterRule{action: r.Action, protocols: r.Protocols}
		for _, peer := range r.From {
			rule.peers = append(rule.peers, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
		}
		out = append(out, rule)
	}
	return out
}

// matchClusterRule reports whether a rule matches a flow. "In that case it should fail closed. For Accept rules, 'fail closed'
// means: treat the rule as matching no traffic. For Deny and Pass rules: treat the rule as a 'Deny all' rule."
func (c *Cluster) matchClusterRule(tier policy.Tier, r *clusterRule, f policy.Flow, peer netip.Addr) (*ClusterRule, bool) {
	var action policy.Action
	switch r.action {
	case cnp.ClusterNetworkPolicyRuleActionAccept:
		action = policy.Allow
	case cnp.ClusterNetworkPolicyRuleActionPass:
		action = policy.Pass
	case cnp.ClusterNetworkPolicyRuleActionDeny:
		action = policy.Deny
	default: // not known: as closed as can be
		return &ClusterRule{Action: policy.Deny, Unreadable: true}, true
	}
	if r.isUnreadable(tier, action) {
		return &ClusterRule{Action: policy.Deny, Unreadable: true}, action != policy.Allow
	}
	matches := slices.ContainsFunc(r.peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
		return c.isClusterPeer(&p, peer) && c.matchesProtocols(r.protocols, f, len(p.DomainNames) > 0)
	})
	return &ClusterRule{Action: action}, matches
}

// isUnreadable reports whether a rule has a peer or a protocol without a field that is known, a selector or a block that cannot
// be read, or domain names where they are not supported: "DomainNames is only supported for Accept rules", of the Admin tier.
func (r *clusterRule) isUnreadable(tier policy.Tier, action policy.Action) bool {
	for _, p := range r.peers {
		if p.Namespaces == nil && p.Pods == nil && p.Nodes == nil && len(p.Networks) == 0 && len(p.DomainNames) == 0 {
			return true
		}
		if len(p.DomainNames) > 0 && (action != policy.Allow || tier != policy.TierAdmin) {
			return true
		}
		selectors := []*metav1.LabelSelector{p.Namespaces, p.Nodes}
		if p.Pods != nil {
			selectors = append(selectors, &p.Pods.NamespaceSelector, &p.Pods.PodSelector)
		}
		if slices.ContainsFunc(selectors, isInvalid) {
			return true
		}
		for _, n := range p.Networks {
			if _, _, err := netutils.ParseCIDRSloppy(string(n)); err != nil {
				return true
			}
		}
	}
	for _, p := range r.protocols {
		if p.TCP == nil && p.UDP == nil && p.SCTP == nil && p.DestinationNamedPort == "" {
			return true
		}
		if _, port := protocolAndPort(&p); port != nil && port.Number == 0 && (port.Range == nil || port.Range.Start > port.Range.End) {
			return true
		}
	}
	return false
}

// isClusterPeer reports whether an address is one of a peer's. A name that DNS does not admit has none.
func (c *Cluster) isClusterPeer(p *cnp.ClusterNetworkPolicyEgressPeer, addr netip.Addr) bool {
	pod := c.PodAt(addr) // "host-networked pods are not included in this type of peer"
	switch {
	case p.Namespaces != nil:
		return pod != nil && c.selectsNamespace(p.Namespaces, pod.Namespace)
	case p.Pods != nil:
		return pod != nil && c.selectsNamespace(&p.Pods.NamespaceSelector, pod.Namespace) && selects(&p.Pods.PodSelector, pod.Labels)
	case p.Nodes != nil: // "matching on the IPs present in the node.Status.Addresses field of the node"
		return slices.ContainsFunc(c.Nodes, func(n corev1.Node) bool { return selects(p.Nodes, n.Labels) && isNodeAddress(&n, addr) })
	}
	return slices.ContainsFunc(p.Networks, func(n cnp.CIDR) bool { return inCIDR(string(n), addr) }) ||
		slices.ContainsFunc(p.DomainNames, func(n cnp.DomainName) bool {
			pattern, err := policy.CanonicalDomainName(string(n))
			return err == nil && c.Names.Has(pattern, addr)
		})
}

// matchesProtocols reports whether one of a rule's protocols is the flow's; a rule without protocols matches all. Named ports are those of pods
// that policies select: a peer by domain names selects none.
func (c *Cluster) matchesProtocols(protocols []cnp.ClusterNetworkPolicyProtocol, f policy.Flow, byName bool) bool {
	return len(protocols) == 0 || slices.ContainsFunc(protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		return (p.DestinationNamedPort == "" || !byName) && c.matchesProtocol(&p, f)
	})
}

// matchesProtocol reports whether a protocol of a rule is the flow's.
func (c *Cluster) matchesProtocol(p *cnp.ClusterNetworkPolicyProtocol, f policy.Flow) bool {
	if p.DestinationNamedPort != "" { // "based on the ContainerPort name", so only pods match, whatever the rule's peers are
		target := c.PodAt(f.Destination)
		return target != nil && hasNamedPort(target, p.DestinationNamedPort, f)
	}
	switch protocol, port := protocolAndPort(p); {
	case protocol != f.Protocol:
		return false
	case port == nil:
		return true
	case port.Range != nil:
		return port.Range.Start <= int32(f.Port) && int32(f.Port) <= port.Range.End
	default:
		return port.Number == int32(f.Port)
	}
}

// protocolAndPort returns the protocol, and its port if there is one.
func protocolAndPort(p *cnp.ClusterNetworkPolicyProtocol) (policy.Protocol, *cnp.Port) {
	switch {
	case p.TCP != nil:
		return policy.TCP, p.TCP.DestinationPort
	case p.UDP != nil:
		return policy.UDP, p.UDP.DestinationPort
	case p.SCTP != nil:
		return policy.SCTP, p.SCTP.DestinationPort
	}
	return 0, nil
}

// isOwnNode reports whether an address is one of the node that a pod runs on.
func (c *Cluster) isOwnNode(pod *corev1.Pod, addr netip.Addr) bool {
	return slices.ContainsFunc(c.Nodes, func(n corev1.Node) bool { return n.Name == pod.Spec.NodeName && isNodeAddress(&n, addr) })
}

func isNodeAddress(n *corev1.Node, addr netip.Addr) bool {
	return slices.ContainsFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
		ip, err := netip.ParseAddr(a.Address) // host names are no addresses
		return err == nil && ip.Unmap() == addr.Unmap()
	})
}
