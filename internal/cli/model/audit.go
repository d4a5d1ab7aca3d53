package model

import (
	"maps"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Audited are the policies whose label puts them under audit, by Describe.
func (c *Cluster) Audited() (out []string) {
	for i := range c.ClusterPolicies {
		if isAudited(c.ClusterPolicies[i]) {
			out = append(out, Describe(ClusterPolicyKind, &c.ClusterPolicies[i]))
		}
	}
	for i := range c.Policies {
		if isAuditedNetworkPolicy(c.Policies[i]) {
			out = append(out, Describe("NetworkPolicy", &c.Policies[i]))
		}
	}
	return out
}

func isAudited(p cnp.ClusterNetworkPolicy) bool { return policy.IsLabelledAudit(p.Labels) }

func isAuditedNetworkPolicy(np networkingv1.NetworkPolicy) bool {
	return policy.IsLabelledAudit(np.Labels)
}

// Enforced is the cluster without audited policies, which decide about nothing; the cluster itself if there are none.
func (c *Cluster) Enforced() *Cluster {
	if len(c.Audited()) == 0 {
		return c
	}
	out := *c
	out.Policies = slices.DeleteFunc(slices.Clone(c.Policies), isAuditedNetworkPolicy)
	out.ClusterPolicies = slices.DeleteFunc(slices.Clone(c.ClusterPolicies), isAudited)
	return &out
}

// EnforceAudited is the cluster as it would be if audited policies were enforced.
func (c *Cluster) EnforceAudited() *Cluster {
	out := *c
	out.Policies, out.ClusterPolicies = slices.Clone(c.Policies), slices.Clone(c.ClusterPolicies)
	for i := range out.Policies {
		out.Policies[i].Labels = enforced(out.Policies[i].Labels)
	}
	for i := range out.ClusterPolicies {
		out.ClusterPolicies[i].Labels = enforced(out.ClusterPolicies[i].Labels)
	}
	return &out
}

func enforced(labels map[string]string) map[string]string {
	if policy.IsLabelledAudit(labels) {
		labels = maps.Clone(labels)
		delete(labels, v1alpha1.LabelEnforcement)
	}
	return labels
}
