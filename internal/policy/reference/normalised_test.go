package reference

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

type noGroups struct{}

func (noGroups) Contains(policy.GroupKey, netip.Addr) bool { return false }

func TestTiersAreEvaluatedInTheirOrder(t *testing.T) {
	rule := func(a policy.Action, port uint16) policy.Rule {
		return policy.Rule{Action: a, Everyone: true, Ports: []policy.PortRange{{Protocol: policy.TCP, First: port, Last: port}}}
	}
	everything := func(a policy.Action) policy.Rule { return policy.Rule{Action: a, Everyone: true, EveryPort: true} }
	in := func(tier policy.Tier, name string, rules ...policy.Rule) *policy.Policy {
		return &policy.Policy{ID: policy.ID{Kind: "Policy", Name: name}, Tier: tier, Isolates: [2]bool{policy.Ingress: true}, Rules: [2][]policy.Rule{policy.Ingress: rules}}
	}
	for _, tc := range []struct {
		name     string
		policies []*policy.Policy
		action   policy.Action
		tier     policy.Tier
		by       string
	}{
		{"nothing selects the pod", nil, policy.Allow, policy.TierBaseline, ""},
		{"a NetworkPolicy without a matching rule denies", []*policy.Policy{in(policy.TierNetworkPolicy, "np", rule(policy.Allow, 81))}, policy.Deny, policy.TierNetworkPolicy, ""},
		{"NetworkPolicies add up", []*policy.Policy{in(policy.TierNetworkPolicy, "a"), in(policy.TierNetworkPolicy, "b", rule(policy.Allow, 80))}, policy.Allow, policy.TierNetworkPolicy, "b"},
		{"Admin's Deny comes before NetworkPolicy", []*policy.Policy{in(policy.TierAdmin, "admin", rule(policy.Deny, 80)), in(policy.TierNetworkPolicy, "np", everything(policy.Allow))}, policy.Deny, policy.TierAdmin, "admin"},
		{"Admin's Allow comes before NetworkPolicy", []*policy.Policy{in(policy.TierAdmin, "admin", rule(policy.Allow, 80)), in(policy.TierNetworkPolicy, "np")}, policy.Allow, policy.TierAdmin, "admin"},
		{"the first matching rule of Admin counts", []*policy.Policy{in(policy.TierAdmin, "admin", rule(policy.Deny, 80), everything(policy.Allow))}, policy.Deny, policy.TierAdmin, "admin"},
		{"Pass leaves out the rest of Admin", []*policy.Policy{
			in(policy.TierAdmin, "a", rule(policy.Pass, 80), everything(policy.Deny)), in(policy.TierAdmin, "b", everything(policy.Deny)), in(policy.TierNetworkPolicy, "np", everything(policy.Allow)),
		}, policy.Allow, policy.TierNetworkPolicy, "np"},
		{"Pass goes to Baseline where no NetworkPolicy selects", []*policy.Policy{
			in(policy.TierAdmin, "a", everything(policy.Pass)), in(policy.TierBaseline, "base", everything(policy.Deny)),
		}, policy.Deny, policy.TierBaseline, "base"},
		{"an isolated pod is not Baseline's", []*policy.Policy{in(policy.TierNetworkPolicy, "np"), in(policy.TierBaseline, "base", everything(policy.Allow))}, policy.Deny, policy.TierNetworkPolicy, ""},
		{"Baseline without a match allows", []*policy.Policy{in(policy.TierBaseline, "base", rule(policy.Deny, 81))}, policy.Allow, policy.TierBaseline, ""},
		{"a policy of the other direction isolates nothing", []*policy.Policy{
			{Tier: policy.TierNetworkPolicy, Isolates: [2]bool{policy.Egress: true}}, in(policy.TierBaseline, "base", everything(policy.Deny)),
		}, policy.Deny, policy.TierBaseline, "base"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: policy.TCP, Port: 80}
			v := Evaluate(policy.Ingress, tc.policies, f, noGroups{})
			by := ""
			if v.Policy != nil {
				by = v.Policy.ID.Name
			}
			if v.Action != tc.action || v.Tier != tc.tier || by != tc.by {
				t.Errorf("%v in %v by %q, want %v in %v by %q", v.Action, v.Tier, by, tc.action, tc.tier, tc.by)
			}
		})
	}
}
