package tiered

import (
	"cmp"
	"slices"

	anp "sigs.k8s.io/network-policy-api/apis/v1alpha1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
)

// Policy for the pods of a cluster. Its peers and ports are those of v1alpha1.
type Policy struct {
	Kind, Name string
	Tier       cnp.Tier
	// Priority in the tier; lower ones are evaluated first.
	Priority    int32
	Labels      map[string]string
	Annotations map[string]string
	Subject     anp.AdminNetworkPolicySubject
	Rules       [2][]Rule
	// Source is the object that the policy is made of, if that is another one. The policy then goes behind others of its priority.
	Source string
}

// Rule of either direction. Peers of ingress have pods and namespaces only.
type Rule struct {
	Name   string
	Action policy.Action
	Peers  []anp.AdminNetworkPolicyEgressPeer
	// Ports are all, of every protocol, if nil.
	Ports *[]anp.AdminNetworkPolicyPort
}

func (p *Policy) String() string { return p.Kind + " " + p.Name }

// Sorted returns the policies in the order in which they are evaluated: by tier, priority and name. The APIs leave the order of
// policies with one priority open.
func Sorted(policies []Policy) []Policy {
	out := slices.Clone(policies)
	slices.SortStableFunc(out, func(a, b Policy) int {
		return cmp.Or(cmp.Compare(a.Tier, b.Tier), cmp.Compare(a.Priority, b.Priority), cmp.Compare(min(len(a.Source), 1), min(len(b.Source), 1)), cmp.Compare(a.Name, b.Name))
	})
	return out
}

// SourceAnnotation of a policy is the object that it was converted from. A later conversion may write it anew.
const SourceAnnotation = "networking.kidoban.dev/converted-from"

// DenyFirst returns the policies with the rules of each direction in another order: Deny, then Allow, then Pass. This is how AWS's
// agent evaluates the rules of one policy.
func DenyFirst(policies []Policy) []Policy {
	rank := map[policy.Action]int{policy.Deny: 0, policy.Allow: 1, policy.Pass: 2}
	out := slices.Clone(policies)
	for i := range out {
		for d := range out[i].Rules {
			rules := slices.Clone(out[i].Rules[d])
			slices.SortStableFunc(rules, func(a, b Rule) int { return rank[a.Action] - rank[b.Action] })
			out[i].Rules[d] = rules
		}
	}
	return out
}
