package calico

import (
	"cmp"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
)

// Annotation of a policy that was converted from one of Calico's: the policy that it comes from.
const Annotation = "networking.kidoban.dev/converted-from"

// clusterTiers makes ClusterNetworkPolicies ready: the Admin tier is asked before all of Calico's, and the Baseline tier after them. A pod
// that a NetworkPolicy isolates is decided about at the end of the default tier.
func clusterTiers(policies []cnp.ClusterNetworkPolicy) (admin, baseline JudgedTier) {
	admin = JudgedTier{Tier: Tier{Name: "Admin", DefaultAction: Pass}}
	baseline = JudgedTier{Tier: Tier{Name: "Baseline", DefaultAction: Pass}}
	for i := range policies {
		p := &policies[i]
		tier := &admin
		if p.Spec.Tier == cnp.BaselineTier {
			tier = &baseline
		}
		tier.Policies = append(tier.Policies, clusterPolicy(p))
	}
	for _, tier := range []*JudgedTier{&admin, &baseline} {
		slices.SortStableFunc(tier.Policies, func(a, b *JudgedPolicy) int {
			return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.name, b.name))
		})
	}
	return admin, baseline
}

var clusterActions = map[cnp.ClusterNetworkPolicyRuleAction]Action{
	cnp.ClusterNetworkPolicyRuleActionAccept: Allow, cnp.ClusterNetworkPolicyRuleActionDeny: Deny, cnp.ClusterNetworkPolicyRuleActionPass: Pass,
}

func clusterPolicy(p *cnp.ClusterNetworkPolicy) *JudgedPolicy {
	out := &JudgedPolicy{Name: "ClusterNetworkPolicy " + p.Name, name: p.Name, Order: float64(p.Spec.Priority), Isolates: [2]bool{true, true}}
	out.selects = clusterPods(p.Spec.Subject.Namespaces, p.Spec.Subject.Pods)
	add := func(d policy.Direction, i int, action cnp.ClusterNetworkPolicyRuleAction, to []cnp.ClusterNetworkPolicyEgressPeer, protocols []cnp.ClusterNetworkPolicyProtocol) {
		var peers []func(*Endpoint) bool
		for j := range to {
			peers = append(peers, clusterPeer(&to[j]))
		}
		out.Rules[d] = append(out.Rules[d], &JudgedRule{
			Action: clusterActions[action], Path: RulePath(d, i),
			self: func(*Endpoint) bool { return true },
			peer: func(e *Endpoint) bool {
				return slices.ContainsFunc(peers, func(is func(*Endpoint) bool) bool { return is(e) })
			},
			traffic: func(t Traffic) bool {
				return len(protocols) == 0 || slices.ContainsFunc(protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool { return t.isOf(&p) })
			},
		})
	}
	for i, r := range p.Spec.Ingress {
		var from []cnp.ClusterNetworkPolicyEgressPeer
		for _, peer := range r.From {
			from = append(from, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: peer.Namespaces, Pods: peer.Pods})
		}
		add(policy.Ingress, i, r.Action, from, r.Protocols)
	}
	for i, r := range p.Spec.Egress {
		add(policy.Egress, i, r.Action, r.To, r.Protocols)
	}
	return out
}

func clusterPods(namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod) func(*Endpoint) bool {
	own := &metav1.LabelSelector{}
	if pods != nil {
		namespaces, own = &pods.NamespaceSelector, &pods.PodSelector
	}
	n, err := metav1.LabelSelectorAsSelector(namespaces)
	o, err2 := metav1.LabelSelectorAsSelector(own)
	if err != nil || err2 != nil {
		return func(*Endpoint) bool { return false }
	}
	return func(e *Endpoint) bool {
		return e.Pod != nil && n.Matches(labels.Set(e.NamespaceLabels)) && o.Matches(labels.Set(e.Pod.Labels))
	}
}

func clusterPeer(p *cnp.ClusterNetworkPolicyEgressPeer) func(*Endpoint) bool {
	if p.Namespaces != nil || p.Pods != nil {
		return clusterPods(p.Namespaces, p.Pods)
	}
	var texts, names []string
	for _, n := range p.Networks {
		texts = append(texts, string(n))
	}
	for _, n := range p.DomainNames {
		names = append(names, string(n))
	}
	nets, err := ParseNets(texts)
	if err != nil {
		panic(fmt.Sprintf("a network that was written is none: %v", err))
	}
	return func(e *Endpoint) bool { return inside(e.Addr, nets) || hasName(e, names) }
}

// isOf reports whether the traffic is of a protocol of a ClusterNetworkPolicy.
func (t Traffic) isOf(p *cnp.ClusterNetworkPolicyProtocol) bool {
	var port *cnp.Port
	var protocol policy.Protocol
	switch {
	case p.TCP != nil:
		protocol, port = policy.TCP, p.TCP.DestinationPort
	case p.UDP != nil:
		protocol, port = policy.UDP, p.UDP.DestinationPort
	case p.SCTP != nil:
		protocol, port = policy.SCTP, p.SCTP.DestinationPort
	default:
		return t.Target != nil && slices.Contains(policy.ContainerPorts(t.Target), policy.NamedPort{Protocol: t.Protocol, Name: p.DestinationNamedPort, Port: t.Port})
	}
	switch {
	case protocol != t.Protocol:
		return false
	case port == nil:
		return true
	case port.Range != nil:
		return port.Range.Start <= int32(t.Port) && int32(t.Port) <= port.Range.End
	}
	return port.Number == int32(t.Port)
}
