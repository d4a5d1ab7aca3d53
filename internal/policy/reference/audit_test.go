package reference

import (
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

var underAudit = map[string]string{v1alpha1.LabelEnforcement: v1alpha1.LabelledAudit}

func TestAuditedPoliciesAreEvaluatedBesideTheEnforcedOnes(t *testing.T) {
	f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.2"), Protocol: policy.TCP, Port: 80}
	everything := func(a policy.Action) policy.Rule { return policy.Rule{Action: a, Everyone: true, EveryPort: true} }
	in := func(tier policy.Tier, audited bool, rules ...policy.Rule) *policy.Policy {
		return &policy.Policy{Tier: tier, Audited: audited, Isolates: [2]bool{policy.Ingress: true}, Rules: [2][]policy.Rule{policy.Ingress: rules}}
	}
	const enforced, audited = false, true
	admin, np, baseline := policy.TierAdmin, policy.TierNetworkPolicy, policy.TierBaseline
	for _, tc := range []struct {
		name         string
		policies     []*policy.Policy
		now, wouldBe policy.Action
		tier         policy.Tier // that would decide
	}{
		{"an audited NetworkPolicy isolates no pod", []*policy.Policy{in(np, audited)}, policy.Allow, policy.Deny, np},
		{"nor does it where another one isolates", []*policy.Policy{in(np, audited), in(np, enforced, everything(policy.Allow))}, policy.Allow, policy.Allow, np},
		{"it would allow what another denies", []*policy.Policy{in(np, enforced), in(np, audited, everything(policy.Allow))}, policy.Deny, policy.Allow, np},
		{"all audited policies are evaluated together", []*policy.Policy{in(np, audited), in(np, audited, everything(policy.Allow))}, policy.Allow, policy.Allow, np},
		{"an audited Deny denies nothing", []*policy.Policy{in(admin, audited, everything(policy.Deny)), in(np, enforced, everything(policy.Allow))}, policy.Allow, policy.Deny, admin},
		{"an audited Accept accepts nothing", []*policy.Policy{in(admin, audited, everything(policy.Allow)), in(np, enforced)}, policy.Deny, policy.Allow, admin},
		{"an audited Pass would uncover what an enforced Accept hides", []*policy.Policy{
			in(admin, audited, everything(policy.Pass)), in(admin, enforced, everything(policy.Allow)), in(np, enforced),
		}, policy.Allow, policy.Deny, np},
		{"an audited Pass would skip an enforced Deny", []*policy.Policy{in(admin, audited, everything(policy.Pass)), in(admin, enforced, everything(policy.Deny))},
			policy.Deny, policy.Allow, baseline},
		{"an audited NetworkPolicy would hide an enforced Baseline", []*policy.Policy{
			in(np, audited, everything(policy.Allow)), in(baseline, enforced, everything(policy.Deny)),
		}, policy.Deny, policy.Allow, np},
		{"an audited Baseline has no say about an isolated pod", []*policy.Policy{in(np, enforced, everything(policy.Allow)), in(baseline, audited, everything(policy.Deny))},
			policy.Allow, policy.Allow, np},
		{"two policies that agree make no difference", []*policy.Policy{in(admin, audited, everything(policy.Deny)), in(np, enforced)}, policy.Deny, policy.Deny, admin},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := EvaluateAudit(policy.Ingress, tc.policies, f, noGroups{}, nil)
			if got.Enforced.Action != tc.now || got.All.Action != tc.wouldBe || got.All.Tier != tc.tier || got.Differs() != (tc.now != tc.wouldBe) {
				t.Errorf("%v now, %v by %v if enforced; want %v now, %v by %v", got.Enforced.Action, got.All.Action, got.All.Tier, tc.now, tc.wouldBe, tc.tier)
			}
			if other := EvaluateAudit(policy.Egress, tc.policies, f, noGroups{}, nil); other.Differs() {
				t.Errorf("policies for ingress would change egress: %+v", other)
			}
		})
	}
}

func TestALabelPutsAPolicyUnderAudit(t *testing.T) {
	const denies = "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\ningress: [{action: Deny, from: [{namespaces: {}}]}]"
	for _, tc := range []struct {
		name         string
		labels       map[string]string
		now, wouldBe bool
	}{
		{"no label", nil, false, false},
		{"audit", underAudit, true, false},
		{"enforce", map[string]string{v1alpha1.LabelEnforcement: v1alpha1.LabelledEnforce}, false, false},
		{"another value enforces", map[string]string{v1alpha1.LabelEnforcement: "Audit"}, false, false},
	} {
		f := policy.Flow{Source: netip.MustParseAddr(frontend), Destination: netip.MustParseAddr(backend), Protocol: policy.TCP, Port: 80}
		for kind, c := range map[string]*Cluster{"NetworkPolicy": clusterWith(t), "ClusterNetworkPolicy": clusterWith(t, denies)} {
			if kind == "NetworkPolicy" {
				c.Policies = []networkingv1.NetworkPolicy{denyAll()}
				c.Policies[0].Labels = tc.labels
			} else {
				c.ClusterPolicies[0].Labels = tc.labels
			}
			now := c.Allows(f)
			c.EnforceAudited = true
			if wouldBe := c.Allows(f); now != tc.now || wouldBe != tc.wouldBe {
				t.Errorf("%s of a %s: allowed %v now and %v if enforced; want %v and %v", tc.name, kind, now, wouldBe, tc.now, tc.wouldBe)
			}
		}
	}
}
