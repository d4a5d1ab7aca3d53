package policy

import (
	"net/netip"
	"testing"
)

type noGroups struct{}

func (noGroups) Contains(GroupKey, netip.Addr) bool { return false }

func TestTiersAreJudgedInTheirOrder(t *testing.T) {
	rule := func(a Action, port uint16) Rule {
		return Rule{Action: a, Everyone: true, Ports: []PortRange{{Protocol: TCP, First: port, Last: port}}}
	}
	everything := func(a Action) Rule { return Rule{Action: a, Everyone: true, EveryPort: true} }
	in := func(tier Tier, name string, rules ...Rule) *Policy {
		return &Policy{ID: ID{Kind: "Policy", Name: name}, Tier: tier, Isolates: [2]bool{Ingress: true}, Rules: [2][]Rule{Ingress: rules}}
	}
	for _, tc := range []struct {
		name     string
		policies []*Policy
		action   Action
		tier     Tier
		by       string
	}{
		{"nothing selects the pod", nil, Allow, TierBaseline, ""},
		{"a NetworkPolicy without a matching rule refuses", []*Policy{in(TierNetworkPolicy, "np", rule(Allow, 81))}, Deny, TierNetworkPolicy, ""},
		{"NetworkPolicies add up", []*Policy{in(TierNetworkPolicy, "a"), in(TierNetworkPolicy, "b", rule(Allow, 80))}, Allow, TierNetworkPolicy, "b"},
		{"Admin's Deny comes before NetworkPolicy", []*Policy{in(TierAdmin, "admin", rule(Deny, 80)), in(TierNetworkPolicy, "np", everything(Allow))}, Deny, TierAdmin, "admin"},
		{"Admin's Allow comes before NetworkPolicy", []*Policy{in(TierAdmin, "admin", rule(Allow, 80)), in(TierNetworkPolicy, "np")}, Allow, TierAdmin, "admin"},
		{"the first matching rule of Admin counts", []*Policy{in(TierAdmin, "admin", rule(Deny, 80), everything(Allow))}, Deny, TierAdmin, "admin"},
		{"Pass leaves out the rest of Admin", []*Policy{
			in(TierAdmin, "a", rule(Pass, 80), everything(Deny)), in(TierAdmin, "b", everything(Deny)), in(TierNetworkPolicy, "np", everything(Allow)),
		}, Allow, TierNetworkPolicy, "np"},
		{"Pass goes to Baseline where no NetworkPolicy selects", []*Policy{
			in(TierAdmin, "a", everything(Pass)), in(TierBaseline, "base", everything(Deny)),
		}, Deny, TierBaseline, "base"},
		{"an isolated pod is not Baseline's", []*Policy{in(TierNetworkPolicy, "np"), in(TierBaseline, "base", everything(Allow))}, Deny, TierNetworkPolicy, ""},
		{"Baseline without a match accepts", []*Policy{in(TierBaseline, "base", rule(Deny, 81))}, Allow, TierBaseline, ""},
		{"a policy of the other direction isolates nothing", []*Policy{
			{Tier: TierNetworkPolicy, Isolates: [2]bool{Egress: true}}, in(TierBaseline, "base", everything(Deny)),
		}, Deny, TierBaseline, "base"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: TCP, Port: 80}
			v := Evaluate(Ingress, tc.policies, f, noGroups{})
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
