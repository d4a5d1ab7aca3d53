package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// ClusterFailClosed returns the policy to enforce in place of a ClusterPolicyEndpoint that FromClusterPolicyEndpoint cannot read.
// A rule that cannot be read accepts nothing, or denies everything in place of a Deny or a Pass. An unknown field outside the rules may
// change what all of them mean. passed is what happens to a flow that the Baseline tier passes: Allow, or Deny for pods that are denied
// what no policy decides about.
func ClusterFailClosed(cpe *v1alpha1.ClusterPolicyEndpoint, shared string, passed Action) *Policy {
	p := &Policy{
		ID: idOf("", &cpe.Spec.PolicyRef), Priority: cpe.Spec.Priority, Audited: cpe.Spec.Enforcement == v1alpha1.EnforcementAudit,
	}
	if cpe.Spec.Tier == v1alpha1.TierBaseline {
		p.Tier = TierBaseline
	}
	all := cpe.Spec.Tier != v1alpha1.TierBaseline && cpe.Spec.Tier != v1alpha1.TierAdmin || enforceable(nil, cpe.Spec.Enforcement) != nil
	all = all || slices.ContainsFunc(cpe.Spec.UnknownFields, func(f string) bool {
		return !strings.HasPrefix(f, "ingress[") && !strings.HasPrefix(f, "egress[")
	})
	r := clusterReader(shared, p.Tier, passed)
	for d, rules := range [2][]v1alpha1.Rule{Ingress: cpe.Spec.Ingress, Egress: cpe.Spec.Egress} {
		p.Isolates[d] = len(rules) > 0
		for i := range rules {
			path := fmt.Sprintf("%s[%d]", [...]string{"ingress", "egress"}[d], i)
			read, err := r.rules("spec."+path, rules[i:i+1])
			unknown := slices.ContainsFunc(cpe.Spec.UnknownFields, func(f string) bool { return strings.HasPrefix(f, path) })
			switch {
			case err == nil && !all && !unknown:
				p.Rules[d] = append(p.Rules[d], read...)
			case rules[i].Action != v1alpha1.ActionAccept:
				p.Rules[d] = append(p.Rules[d], Rule{Name: rules[i].Name, Action: Deny, Origin: rules[i].RuleIndexes, Everyone: true, EveryPort: true})
			}
		}
	}
	return p
}

// Groups are those that the policy's rules refer to, each as often as they do. They keep no part of the policy in memory.
func (p *Policy) Groups() (out []GroupKey) {
	for _, rules := range p.Rules {
		for i := range rules {
			for peer := range rules[i].Peers.All() {
				if peer.IsGroup() {
					out = append(out, GroupKey{Namespace: strings.Clone(peer.Group.Namespace), Name: strings.Clone(peer.Group.Name)})
				}
			}
		}
	}
	return out
}
