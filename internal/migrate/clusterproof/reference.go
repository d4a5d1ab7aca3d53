package clusterproof

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Reference judges by the reference evaluator.
type Reference struct {
	Cluster         []cnp.ClusterNetworkPolicy
	NetworkPolicies []networkingv1.NetworkPolicy
	// Tiers makes the tier that decides a part of the outcome: what differs in it differs under some NetworkPolicies.
	Tiers bool

	resolved map[string][]cnp.ClusterNetworkPolicy
}

// Judge a flow.
func (r *Reference) Judge(d policy.Direction, f *Flow) Verdict {
	c := reference.Cluster{
		NetworkPolicies: reference.NetworkPolicies{Namespaces: f.Namespaces, Pods: f.Pods, Policies: r.NetworkPolicies},
		Nodes:           f.Nodes, ClusterPolicies: r.resolve(f.Names),
	}
	got := c.Evaluate(d, f.Flow)
	v := Verdict{Outcome: Outcome(got.Action, got.Tier, r.Tiers), By: "default"}
	rule := got.Baseline
	if got.Tier == policy.TierAdmin {
		rule = got.Admin
	}
	switch np := got.NetworkPolicy; {
	case got.Tier == policy.TierNetworkPolicy && np.Policy == nil:
		v.By = "isolated"
	case got.Tier == policy.TierNetworkPolicy:
		v.By = fmt.Sprintf("NetworkPolicy %s/%s: rule %d", np.Policy.Namespace, np.Policy.Name, np.Rule)
	case rule != nil:
		v.By = fmt.Sprintf("ClusterNetworkPolicy %s: %s", rule.Policy.Name, RuleName(d, rule.Index, nameOf(d, rule)))
	case got.Admin != nil:
		v.By = fmt.Sprintf("default, after ClusterNetworkPolicy %s: %s passed", got.Admin.Policy.Name, RuleName(d, got.Admin.Index, nameOf(d, got.Admin)))
	}
	return v
}

func nameOf(d policy.Direction, r *reference.ClusterRule) string {
	if d == policy.Ingress {
		return r.Policy.Spec.Ingress[r.Index].Name
	}
	return r.Policy.Spec.Egress[r.Index].Name
}

// RuleName is a rule by its name or else by its field.
func RuleName(d policy.Direction, index int, name string) string {
	if name != "" {
		return "rule " + name
	}
	return fmt.Sprintf("spec.%s[%d]", [...]string{"ingress", "egress"}[d], index)
}

// Outcome of a decision.
func Outcome(a policy.Action, t policy.Tier, withTier bool) string {
	if withTier && t == policy.TierAdmin {
		return a.String() + " in tier Admin"
	}
	return a.String()
}

// resolve the policies where the peer's address belongs to these names: a name that has the address is all networks, as the reference
// evaluator knows no addresses of names; any other has no address.
func (r *Reference) resolve(names map[string]bool) []cnp.ClusterNetworkPolicy {
	if len(names) == 0 {
		return r.Cluster
	}
	key := fmt.Sprint(names)
	if known, ok := r.resolved[key]; ok {
		return known
	}
	var out []cnp.ClusterNetworkPolicy
	for i := range r.Cluster {
		p := r.Cluster[i].DeepCopy()
		for j := range p.Spec.Egress {
			rule := &p.Spec.Egress[j]
			for k := range rule.To {
				has := func(n cnp.DomainName) bool { return names[string(n)] }
				if rule.Action == cnp.ClusterNetworkPolicyRuleActionAccept && p.Spec.Tier == cnp.AdminTier && slices.ContainsFunc(rule.To[k].DomainNames, has) {
					rule.To[k] = cnp.ClusterNetworkPolicyEgressPeer{Networks: []cnp.CIDR{"0.0.0.0/0", "::/0"}}
				}
			}
		}
		out = append(out, *p)
	}
	if r.resolved == nil {
		r.resolved = map[string][]cnp.ClusterNetworkPolicy{}
	}
	r.resolved[key] = out
	return out
}
