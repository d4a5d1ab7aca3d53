package model

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	netutils "k8s.io/utils/net"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// ClusterRule is a rule of a ClusterNetworkPolicy, of either direction.
type ClusterRule struct {
	Name      string
	Action    cnp.ClusterNetworkPolicyRuleAction
	Peers     []cnp.ClusterNetworkPolicyEgressPeer
	Protocols []cnp.ClusterNetworkPolicyProtocol
}

// ClusterRules returns a ClusterNetworkPolicy's rules of direction d, in its order.
func ClusterRules(d policy.Direction, p *cnp.ClusterNetworkPolicy) (out []ClusterRule) {
	if d == policy.Egress {
		for _, r := range p.Spec.Egress {
			out = append(out, ClusterRule{r.Name, r.Action, r.To, r.Protocols})
		}
		return out
	}
	for _, r := range p.Spec.Ingress {
		rule := ClusterRule{Name: r.Name, Action: r.Action, Protocols: r.Protocols}
		for _, peer := range r.From {
			rule.Peers = append(rule.Peers, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
		}
		out = append(out, rule)
	}
	return out
}

// TierOf a ClusterNetworkPolicy.
func TierOf(p *cnp.ClusterNetworkPolicy) policy.Tier {
	if p.Spec.Tier == cnp.BaselineTier {
		return policy.TierBaseline
	}
	return policy.TierAdmin
}

// Unreadable returns why a rule cannot be honoured, or "". Accept then matches nothing, and Deny and Pass deny everything.
func (r *ClusterRule) Unreadable(tier policy.Tier) string {
	switch r.Action {
	case cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass:
	default:
		return fmt.Sprintf("its action %q is not known", r.Action)
	}
	for i := range r.Peers {
		p := &r.Peers[i]
		switch {
		case p.Namespaces == nil && p.Pods == nil && p.Nodes == nil && len(p.Networks) == 0 && len(p.DomainNames) == 0:
			return fmt.Sprintf("its peer %d has no field that is known", i)
		case len(p.DomainNames) > 0 && r.Action != cnp.ClusterNetworkPolicyRuleActionAccept:
			return "domainNames are for Accept rules only"
		case len(p.DomainNames) > 0 && tier != policy.TierAdmin:
			return "domainNames are for the Admin tier only"
		}
		for _, s := range selectorsOf(p) {
			if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
				return err.Error()
			}
		}
		for _, n := range p.Networks {
			if _, _, err := netutils.ParseCIDRSloppy(string(n)); err != nil {
				return fmt.Sprintf("%q is not a valid CIDR", n)
			}
		}
	}
	for i := range r.Protocols {
		p := &r.Protocols[i]
		if p.TCP == nil && p.UDP == nil && p.SCTP == nil && p.DestinationNamedPort == "" {
			return fmt.Sprintf("its protocol %d has no field that is known", i)
		}
		if _, port := ProtocolAndPort(p); port != nil && port.Number == 0 && (port.Range == nil || port.Range.Start > port.Range.End) {
			return fmt.Sprintf("the port of its protocol %d is neither a number nor a range", i)
		}
	}
	return ""
}

func selectorsOf(p *cnp.ClusterNetworkPolicyEgressPeer) []*metav1.LabelSelector {
	out := []*metav1.LabelSelector{p.Namespaces, p.Nodes}
	if p.Pods != nil {
		out = append(out, &p.Pods.NamespaceSelector, &p.Pods.PodSelector)
	}
	return out
}

// ProtocolAndPort returns the protocol of a rule's, and its port if there is one. The protocol is 0 for a named port.
func ProtocolAndPort(p *cnp.ClusterNetworkPolicyProtocol) (policy.Protocol, *cnp.Port) {
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

// MatchesProtocols reports whether one of a rule's protocols is the flow's; a rule without protocols matches all. A named port is one of the
// pod at the flow's destination, target, which is nil if there is none.
func (r *ClusterRule) MatchesProtocols(target *corev1.Pod, f policy.Flow) bool {
	return len(r.Protocols) == 0 || slices.ContainsFunc(r.Protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		if p.DestinationNamedPort != "" {
			return target != nil && slices.Contains(policy.ContainerPorts(target), policy.NamedPort{Protocol: f.Protocol, Name: p.DestinationNamedPort, Port: f.Port})
		}
		switch protocol, port := ProtocolAndPort(&p); {
		case protocol != f.Protocol:
			return false
		case port == nil:
			return true
		case port.Range != nil:
			return port.Range.Start <= int32(f.Port) && int32(f.Port) <= port.Range.End
		default:
			return port.Number == int32(f.Port)
		}
	})
}

// clusterPeer is a peer of a ClusterNetworkPolicy's rule, or its subject, parsed once to be matched often.
type clusterPeer struct {
	namespaces, pods labels.Selector
	networks         []*net.IPNet
	nodes            []netip.Addr // of the nodes that it selects
	names            []string     // in canonical form
}

// newClusterPeer parses a peer. A part that cannot be parsed matches nothing.
func newClusterPeer(p *cnp.ClusterNetworkPolicyEgressPeer, c *Cluster) *clusterPeer {
	read := func(s *metav1.LabelSelector) labels.Selector {
		out, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			return labels.Nothing()
		}
		return out
	}
	m := &clusterPeer{}
	switch {
	case p.Namespaces != nil:
		m.namespaces, m.pods = read(p.Namespaces), labels.Everything()
	case p.Pods != nil:
		m.namespaces, m.pods = read(&p.Pods.NamespaceSelector), read(&p.Pods.PodSelector)
	case p.Nodes != nil:
		s := read(p.Nodes)
		for _, n := range c.KnownNodes() {
			if s.Matches(labels.Set(n.Labels)) {
				m.nodes = append(m.nodes, allAddresses(&n)...)
			}
		}
	}
	for _, text := range p.Networks {
		if _, n, err := netutils.ParseCIDRSloppy(string(text)); err == nil {
			m.networks = append(m.networks, n)
		}
	}
	for _, text := range p.DomainNames {
		if name, err := policy.CanonicalDomainName(string(text)); err == nil {
			m.names = append(m.names, name)
		}
	}
	return m
}

// coversName reports whether the peer has a name, or a wildcard above it.
func (m *clusterPeer) coversName(name string) bool {
	return coversAny(m.names, name)
}

func coversAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool { return policy.CoversName(pattern, name) })
}

// ClusterPeer parses a peer of a ClusterNetworkPolicy in a cluster.
func ClusterPeer(p *cnp.ClusterNetworkPolicyEgressPeer, c *Cluster) interface {
	Matches(addr netip.Addr, pod *corev1.Pod, namespaceLabels map[string]string) bool
} {
	return newClusterPeer(p, c)
}

// DenyingRule is the rule of a ClusterNetworkPolicy that denies, or nil.
func DenyingRule(d reference.ClusterDecision) *reference.ClusterRule {
	switch {
	case d.Allowed():
		return nil
	case d.Tier == policy.TierAdmin:
		return d.Admin
	case d.Tier == policy.TierBaseline:
		return d.Baseline
	}
	return nil
}

// allAddresses of a node that are IP addresses, also those outside the cluster.
func allAddresses(n *corev1.Node) (out []netip.Addr) {
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && !slices.Contains(out, addr.Unmap()) {
			out = append(out, addr.Unmap())
		}
	}
	return out
}

// subjectOf a policy, as a peer of its pods. A kind of subject that is not known selects none.
func subjectOf(p *cnp.ClusterNetworkPolicy, c *Cluster) *clusterPeer {
	out := newClusterPeer(&cnp.ClusterNetworkPolicyEgressPeer{Namespaces: p.Spec.Subject.Namespaces, Pods: p.Spec.Subject.Pods}, c)
	if out.namespaces == nil {
		out.namespaces = labels.Nothing()
	}
	return out
}

// Matches reports whether the peer contains an address. pod is the pod that has the address, or nil. namespaceLabels are those of the pod's
// namespace, or nil if the namespace is unknown.
func (m *clusterPeer) Matches(addr netip.Addr, pod *corev1.Pod, namespaceLabels map[string]string) bool {
	if m.namespaces != nil {
		return pod != nil && namespaceLabels != nil && m.namespaces.Matches(labels.Set(namespaceLabels)) && m.pods.Matches(labels.Set(pod.Labels))
	}
	ip := net.IP(addr.AsSlice())
	return slices.Contains(m.nodes, addr) || slices.ContainsFunc(m.networks, func(n *net.IPNet) bool { return n.Contains(ip) })
}

func (m *clusterPeer) hasBlocks() bool { return len(m.networks) > 0 || len(m.nodes) > 0 }

// String is the same for peers with the same blocks.
func (m *clusterPeer) String() string { return fmt.Sprint(m.networks, m.nodes) }

func (m *clusterPeer) blocks() (out []netip.Prefix) {
	for _, n := range m.networks {
		if p, ok := parseBlock(n.String()); ok {
			out = append(out, p)
		}
	}
	for _, a := range m.nodes {
		out = append(out, netip.PrefixFrom(a, a.BitLen()))
	}
	return out
}

// clusterPolicy is a ClusterNetworkPolicy with its rules by direction.
type clusterPolicy struct {
	tier    policy.Tier
	subject *clusterPeer
	rules   [2][]*rule
}

// InOrder returns ClusterNetworkPolicies in the order of evaluation: by priority and, where that is equal, by name.
func InOrder(policies []cnp.ClusterNetworkPolicy) (out []*cnp.ClusterNetworkPolicy) {
	for i := range policies {
		out = append(out, &policies[i])
	}
	slices.SortFunc(out, func(a, b *cnp.ClusterNetworkPolicy) int {
		if a.Spec.Priority != b.Spec.Priority {
			return int(a.Spec.Priority) - int(b.Spec.Priority)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}

// ClusterPoliciesOf returns the ClusterNetworkPolicies with a pod as subject, in the order of evaluation within each tier.
func (e *Evaluator) ClusterPoliciesOf(pod *Pod) (out []*cnp.ClusterNetworkPolicy) {
	ns := e.namespaces[pod.Namespace]
	if ns == nil || !policy.IsPeer(&pod.Pod) {
		return nil
	}
	for _, p := range InOrder(e.cluster.ClusterPolicies) {
		if subjectOf(p, e.cluster).Matches(netip.Addr{}, &pod.Pod, ns.Labels) {
			out = append(out, p)
		}
	}
	return out
}

// clusterRules of a cluster, in the order of evaluation.
func (r *Reach) clusterRules(c *Cluster) (out []*clusterPolicy) {
	for _, p := range InOrder(c.ClusterPolicies) {
		out = append(out, newClusterPolicy(p, c, len(r.places)))
	}
	return out
}

func newClusterPolicy(p *cnp.ClusterNetworkPolicy, c *Cluster, places int) *clusterPolicy {
	out := &clusterPolicy{tier: TierOf(p), subject: subjectOf(p, c)}
	for _, d := range policy.Directions {
		for i, r := range ClusterRules(d, p) {
			if rule := newClusterRule(p, i, &r, c, places); rule != nil {
				out.rules[d] = append(out.rules[d], rule)
			}
		}
	}
	return out
}

var actions = map[cnp.ClusterNetworkPolicyRuleAction]policy.Action{
	cnp.ClusterNetworkPolicyRuleActionAccept: policy.Allow, cnp.ClusterNetworkPolicyRuleActionDeny: policy.Deny, cnp.ClusterNetworkPolicyRuleActionPass: policy.Pass,
}

// newClusterRule is nil for a rule that matches nothing.
func newClusterRule(p *cnp.ClusterNetworkPolicy, index int, r *ClusterRule, c *Cluster, places int) *rule {
	is := &reference.ClusterRule{Policy: p, Index: index, Action: actions[r.Action]}
	out := &rule{decision: decision{action: is.Action, cluster: is, index: index}}
	out.remember(places)
	if r.Unreadable(TierOf(p)) != "" {
		if r.Action == cnp.ClusterNetworkPolicyRuleActionAccept {
			return nil
		}
		is.Action, is.Unreadable, out.action = policy.Deny, true, policy.Deny
		return out
	}
	for i := range r.Peers {
		m := newClusterPeer(&r.Peers[i], c)
		if out.peers = append(out.peers, m); m.hasBlocks() {
			out.blocks = append(out.blocks, m)
		}
	}
	if len(out.peers) == 0 {
		return nil
	}
	if len(r.Protocols) > 0 {
		out.matchPort = r.MatchesProtocols
	}
	for i := range r.Protocols {
		protocol, port := ProtocolAndPort(&r.Protocols[i])
		switch {
		case r.Protocols[i].DestinationNamedPort != "":
			out.named = true
		case port == nil:
		case port.Range != nil:
			out.numbered = append(out.numbered, policy.PortRange{Protocol: protocol, First: uint16(port.Range.Start), Last: uint16(port.Range.End)})
		default:
			out.numbered = append(out.numbered, policy.PortRange{Protocol: protocol, First: uint16(port.Number), Last: uint16(port.Number)})
		}
	}
	return out
}
