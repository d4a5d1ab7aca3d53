package tiered

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
	"github.com/kidoban/kidoban/internal/policy"
)

// Match is the rule of a tier that a flow matches first. Policy is nil if there is none.
type Match struct {
	Policy *Policy
	Index  int
}

// Rule that matches.
func (m Match) Rule(d policy.Direction) *Rule { return &m.Policy.Rules[d][m.Index] }

// By names the rule.
func (m Match) By(d policy.Direction) string {
	return m.Policy.String() + ": " + clusterproof.RuleName(d, m.Index, m.Rule(d).Name)
}

// First returns the rule of a tier that decides about a flow of the pod f.Self: "policies with lower priority values have higher
// precedence"; in a policy, "a rule that appears at the top of the rules would take the highest precedence". policies are sorted.
func First(policies []Policy, tier cnp.Tier, d policy.Direction, f *clusterproof.Flow) Match {
	for i := range policies {
		p := &policies[i]
		if p.Tier != tier || !isOf(p.Subject.Namespaces, p.Subject.Pods, &f.Self) {
			continue
		}
		for j := range p.Rules[d] {
			if p.Rules[d][j].matches(d, f) {
				return Match{p, j}
			}
		}
	}
	return Match{}
}

// Judge is a set of policies without NetworkPolicies between the tiers.
type Judge struct {
	Policies []Policy // sorted
}

// Judge a flow: "All AdminNetworkPolicy rules have higher precedence than NetworkPolicy or BaselineAdminNetworkPolicy rules."
func (j *Judge) Judge(d policy.Direction, f *clusterproof.Flow) clusterproof.Verdict {
	by := "default"
	if m := First(j.Policies, cnp.AdminTier, d, f); m.Policy != nil {
		if a := m.Rule(d).Action; a != policy.Pass {
			return clusterproof.Verdict{Outcome: clusterproof.Outcome(a, policy.TierAdmin, true), By: m.By(d)}
		}
		by = "default, after " + m.By(d) + " passed"
	}
	if m := First(j.Policies, cnp.BaselineTier, d, f); m.Policy != nil {
		return clusterproof.Verdict{Outcome: clusterproof.Outcome(m.Rule(d).Action, policy.TierBaseline, true), By: m.By(d)}
	}
	return clusterproof.Verdict{Outcome: clusterproof.Outcome(policy.Allow, policy.TierBaseline, true), By: by}
}

// matches: "there are no namedPorts for networks/nodes/domainNames", so that a named port is only one of the peers that are pods.
func (r *Rule) matches(d policy.Direction, f *clusterproof.Flow) bool {
	return slices.ContainsFunc(r.Peers, func(peer anp.AdminNetworkPolicyEgressPeer) bool {
		isPods := peer.Namespaces != nil || peer.Pods != nil
		return matchesPeer(&peer, f) && (r.Ports == nil || slices.ContainsFunc(*r.Ports, func(p anp.AdminNetworkPolicyPort) bool {
			return matchesPort(&p, d, f) && (p.NamedPort == nil || isPods)
		}))
	})
}

func matchesPeer(p *anp.AdminNetworkPolicyEgressPeer, f *clusterproof.Flow) bool {
	switch {
	case p.Namespaces != nil || p.Pods != nil:
		return isOf(p.Namespaces, p.Pods, &f.Peer)
	case p.Nodes != nil:
		return f.Peer.Node != nil && selects(p.Nodes, f.Peer.Node.Labels)
	}
	return slices.ContainsFunc(p.DomainNames, func(n anp.DomainName) bool { return f.Names[string(n)] }) ||
		slices.ContainsFunc(p.Networks, func(n anp.CIDR) bool { // "cluster-internal traffic will be checked against the rule as well"
			block, err := netip.ParsePrefix(string(n))
			return err == nil && block.Contains(f.Peer.Addr)
		})
}

// isOf reports whether an end is a pod that a subject or a peer selects.
func isOf(namespaces *metav1.LabelSelector, pods *anp.NamespacedPod, e *clusterproof.End) bool {
	switch {
	case e.Pod == nil:
		return false
	case pods != nil:
		return selects(&pods.NamespaceSelector, e.NamespaceLabels) && selects(&pods.PodSelector, e.Pod.Labels)
	}
	return namespaces != nil && selects(namespaces, e.NamespaceLabels)
}

func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

// matchesPort: "If not specified, this field defaults to TCP." A range from a higher to a lower port is not a port.
func matchesPort(p *anp.AdminNetworkPolicyPort, d policy.Direction, f *clusterproof.Flow) bool {
	is := func(protocol corev1.Protocol) bool {
		if protocol == "" {
			protocol = corev1.ProtocolTCP
		}
		return string(protocol) == f.Protocol.String()
	}
	port := int32(f.Port)
	switch {
	case p.PortNumber != nil:
		return is(p.PortNumber.Protocol) && p.PortNumber.Port == port
	case p.PortRange != nil:
		return is(p.PortRange.Protocol) && p.PortRange.Start <= port && port <= p.PortRange.End
	case p.NamedPort == nil || f.Target(d) == nil:
		return false
	}
	for _, c := range f.Target(d).Spec.Containers {
		for _, cp := range c.Ports {
			if cp.Name == *p.NamedPort && cp.ContainerPort == port && is(cp.Protocol) {
				return true
			}
		}
	}
	return false
}
