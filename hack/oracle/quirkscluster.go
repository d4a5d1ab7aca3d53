package oracle

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy/reference"
)

// labelInside is on every namespace of an adapted cluster, and not on the stand-in for all that is not a pod.
const labelInside = "inside"

func isInside(ns corev1.Namespace) bool {
	_, is := ns.Labels[labelInside]
	return is
}

// adaptClosedRules removes Accept rules with unknown peers, and lets other such rules deny everything. So that a rule of ingress can
// select sources that are not pods, the judge gives these a namespace; all other rules then select only namespaces with a label.
func adaptClosedRules(c *reference.Cluster) (applied bool) {
	var inside []*metav1.LabelSelector
	for i := range c.ClusterPolicies {
		spec := &c.ClusterPolicies[i].Spec
		applied = closeIngress(spec) || applied
		applied = closeEgress(spec) || applied
		for j := range spec.Ingress {
			for _, p := range spec.Ingress[j].From {
				switch {
				case p.Namespaces != nil && p.Namespaces != everywhere:
					inside = append(inside, p.Namespaces)
				case p.Pods != nil:
					inside = append(inside, &p.Pods.NamespaceSelector)
				}
			}
		}
	}
	if !applied {
		return false
	}
	for _, s := range inside {
		s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: labelInside, Operator: metav1.LabelSelectorOpExists})
	}
	for i := range c.Namespaces {
		c.Namespaces[i].Labels = merge(c.Namespaces[i].Labels, labelInside, "")
	}
	return true
}

// everywhere selects pods and, in an adapted cluster, what is not a pod.
var everywhere = &metav1.LabelSelector{}

func closeIngress(spec *cnp.ClusterNetworkPolicySpec) (applied bool) {
	var out []cnp.ClusterNetworkPolicyIngressRule
	for _, r := range spec.Ingress {
		unknown := slices.ContainsFunc(r.From, func(p cnp.ClusterNetworkPolicyIngressPeer) bool { return p.Namespaces == nil && p.Pods == nil })
		switch {
		case !unknown:
			out = append(out, r)
		case r.Action != cnp.ClusterNetworkPolicyRuleActionAccept:
			r.Action, r.Protocols = cnp.ClusterNetworkPolicyRuleActionDeny, nil
			r.From = []cnp.ClusterNetworkPolicyIngressPeer{{Namespaces: everywhere}}
			out = append(out, r)
		}
		applied = applied || unknown
	}
	spec.Ingress = out
	return applied
}

func closeEgress(spec *cnp.ClusterNetworkPolicySpec) (applied bool) {
	var out []cnp.ClusterNetworkPolicyEgressRule
	for _, r := range spec.Egress {
		unknown := slices.ContainsFunc(r.To, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
			return p.Namespaces == nil && p.Pods == nil && p.Nodes == nil && len(p.Networks) == 0
		})
		switch {
		case !unknown:
			out = append(out, r)
		case r.Action != cnp.ClusterNetworkPolicyRuleActionAccept:
			r.Action, r.Protocols = cnp.ClusterNetworkPolicyRuleActionDeny, nil
			r.To = []cnp.ClusterNetworkPolicyEgressPeer{{Networks: []cnp.CIDR{"0.0.0.0/0", "::/0"}}}
			out = append(out, r)
		}
		applied = applied || unknown
	}
	spec.Egress = out
	return applied
}
