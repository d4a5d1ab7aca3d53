package compiler

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
)

func podUnder(c *Compiler, policies ...*policy.Policy) {
	c.SetPod("shop/p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: policies})
	c.Commit()
}

func decide(c *Compiler, source netip.Addr, port uint16) Decision {
	d, _ := c.Maps().Lookup(policy.Ingress, policy.Flow{Source: source, Destination: podAddr, Protocol: policy.TCP, Port: port})
	return d
}

var unlimited = Cost{1 << 40, 1 << 40, 1 << 40, 1 << 40}

func TestAPolicyOverTheBudgetIsolatesWithoutItsRules(t *testing.T) {
	small := ingress("small", onPort(policy.Rule{Everyone: true}, tcp(22, 22)))
	large := ingress("large", onPort(policy.Rule{Everyone: true}, tcp(80, 80), tcp(82, 82), tcp(84, 84)), onPort(policy.Rule{Peers: policy.ListPeers(but(nth(1), nth(2), nth(3)))}, tcp(90, 90), tcp(92, 92)))
	for _, tc := range []struct {
		resource Resource
		budget   func(*Cost) *int
		limit    int
	}{
		{Prefixes, func(b *Cost) *int { return &b.Prefixes }, 3},
		{Rows, func(b *Cost) *int { return &b.Rows }, 1},
		{Ports, func(b *Cost) *int { return &b.Ports }, 7},
		{Steps, func(b *Cost) *int { return &b.Steps }, 0},
	} {
		t.Run(string(tc.resource), func(t *testing.T) {
			budget := unlimited
			*tc.budget(&budget) = tc.limit
			if tc.resource == Steps {
				_, enough := costOf(large)
				*tc.budget(&budget) = enough.work / 3
			}
			c := New(WithBudget(budget))
			podUnder(c, large)
			problems := c.Problems()
			if len(problems) != 1 || problems[0].Policy != large.ID || problems[0].Resource != tc.resource || problems[0].Direction != policy.Ingress ||
				problems[0].Figure <= problems[0].Limit || problems[0].Limit != *tc.budget(&budget) {
				t.Fatalf("problems %+v", problems)
			}
			if d := decide(c, nth(9).Addr(), 80); d != DefaultDeny {
				t.Errorf("%v, want the default denial", d)
			}
			podUnder(c, small) // and what fits again is in force
			if problems := c.Problems(); len(problems) != 0 {
				t.Errorf("problems %+v of a policy that fits", problems)
			}
			if d := decide(c, nth(9).Addr(), 22); d.Action != policy.Allow {
				t.Errorf("%v, want what the policy allows", d)
			}
		})
	}
}

// An enforced policy is in force by itself, whatever does not fit beside it in what would be if audited policies were enforced.
func TestAnAuditedPolicyOverTheBudgetIsNoProblemOfOthers(t *testing.T) {
	budget := unlimited
	budget.Ports = 4
	enforced := ingress("enforced", onPort(policy.Rule{Everyone: true}, tcp(80, 80), tcp(82, 82), tcp(84, 84)))
	audited := ingress("audited", onPort(policy.Rule{Everyone: true}, tcp(90, 90), tcp(92, 92)))
	audited.Audited = true
	c := New(WithBudget(budget))
	spec := PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{enforced}, AuditPolicies: []*policy.Policy{audited, enforced}}
	c.SetPod("shop/p", spec)
	c.Commit()
	if d := decide(c, nth(9).Addr(), 80); d.Action != policy.Allow {
		t.Errorf("%v, want what the enforced policy allows", d)
	}
	if problems := c.Problems(); len(problems) != 1 || problems[0].Policy != audited.ID || problems[0].Resource != Ports {
		t.Errorf("problems %+v, want one of the audited policy", problems)
	}
	spec.AuditPolicies = nil
	c.SetPod("shop/p", spec)
	c.Commit()
	if problems := c.Problems(); len(problems) != 0 {
		t.Errorf("problems %+v", problems)
	}
}

func TestTheMostExpensivePoliciesOfAPodYield(t *testing.T) {
	small := ingress("b-small", onPort(policy.Rule{Everyone: true}, tcp(22, 22)))
	medium := overlappingRules("c-medium", 8, 1, 4, 0)
	large := overlappingRules("a-large", 16, 1, 8, 0)
	budget := DefaultBudget
	budget.Ports = 2000
	c := New(WithBudget(budget))
	podUnder(c, large, small, medium)
	problems := c.Problems()
	if len(problems) != 1 || problems[0].Policy.Name != "a-large" || problems[0].Resource != Ports {
		t.Fatalf("problems %+v", problems)
	}
	for port, want := range map[uint16]policy.Action{22: policy.Allow, 1: policy.Allow, 65: policy.Deny} {
		if d := decide(c, netip.MustParseAddr("10.0.0.1"), port); d.Action != want {
			t.Errorf("port %d: %v, want %v", port, d, want)
		}
	}
}

func TestAClusterPolicyOverTheBudgetDeniesAtItsPlace(t *testing.T) {
	large := overlappingRules("admin", 16, 1, 8, 0)
	large.ID.Namespace, large.Tier = "", policy.TierAdmin
	small := ingress("small", policy.Rule{Everyone: true, EveryPort: true})
	before := overlappingRules("before", 1, 0, 1, 0)
	before.ID.Namespace, before.Tier, before.Priority = "", policy.TierAdmin, -1
	budget := DefaultBudget
	budget.Ports = 500
	c := New(WithBudget(budget))
	podUnder(c, before, large, small)
	if problems := c.Problems(); len(problems) != 2 { // a namespace's policy yields to the cluster's, whatever its size
		t.Fatalf("problems %+v", problems)
	}
	if d := decide(c, nth(100).Addr(), 1); d.Action != policy.Allow || d.Tier != policy.TierAdmin {
		t.Errorf("%v, want what the policy before allows", d)
	}
	if d := decide(c, nth(100).Addr(), 80); d != (Decision{Action: policy.Deny, Tier: policy.TierAdmin}) {
		t.Errorf("%v, want a denial of the Admin tier", d)
	}
}

// What others' pods do to the groups that a policy uses puts it over no budget.
func TestGrowthOfAGroupCostsNoBudget(t *testing.T) {
	p := ingress("p", onPort(from(g1), tcp(1, 1)), onPort(from(g2), tcp(2, 2)))
	budget := DefaultBudget
	budget.Rows, budget.Prefixes = 3, 4
	c := New(WithBudget(budget))
	for i := range 100 {
		c.UpdateGroup(g1, []netip.Prefix{nth(i)}, nil)
		c.UpdateGroup(g2, []netip.Prefix{nth(i / 2)}, nil)
		c.UpdateGroup(g2, []netip.Prefix{must(nth(i).Addr().Prefix(20))}, nil)
	}
	podUnder(c, p)
	if problems := c.Problems(); len(problems) != 0 {
		t.Errorf("problems %+v", problems)
	}
}

// Whatever the API admits is compiled in few steps and little memory: in force where it fits the budget, and isolating where not.
func TestCompilingStopsAtTheBudget(t *testing.T) {
	for _, tc := range []struct {
		name     string
		policies func() []*policy.Policy
		dropped  int
	}{
		{"400 rules with 80 ports each", one(overlappingRules("p", mostRules, 1, 80, 0)), 1},
		{"400 rules with 80 ranges each", one(overlappingRules("p", mostRules, 1, 80, 1000)), 1},
		{"400 rules with 16 excepts and 80 ports each", one(overlappingRules("p", mostRules, mostExcepts, 80, 0)), 1},
		{"200 policies of 400 rules with 80 ports each", many(200, func(i int) *policy.Policy { return overlappingRules(fmt.Sprint("p", i), mostRules, 1, 80, i%3*1000) }), 200},
		{"200 policies of 19,200 blocks each", many(200, func(i int) *policy.Policy { p := blocksOfRules(19200); p.ID.Name = fmt.Sprint("p", i); return p }), 146},
	} {
		t.Run(tc.name, func(t *testing.T) {
			policies := tc.policies()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c := New()
			began := time.Now()
			podUnder(c, policies...)
			took := time.Since(began)
			runtime.ReadMemStats(&after)
			cost := c.cost()
			t.Logf("%v; %d MiB allocated; %+v", took, (after.TotalAlloc-before.TotalAlloc)>>20, cost)
			problems := c.Problems()
			if len(problems) != tc.dropped {
				t.Errorf("%d policies do not fit, want %d: %+v", len(problems), tc.dropped, problems[:min(3, len(problems))])
			}
			if cost.Steps > 6*DefaultBudget.Steps {
				t.Errorf("%d steps", cost.Steps)
			}
			if len(problems) == len(policies) && decide(c, netip.MustParseAddr("10.0.0.1"), 1) != DefaultDeny {
				t.Error("the pod is not isolated")
			}
		})
	}
}

func one(p *policy.Policy) func() []*policy.Policy {
	return func() []*policy.Policy { return []*policy.Policy{p} }
}

func many(n int, of func(int) *policy.Policy) func() []*policy.Policy {
	return func() []*policy.Policy {
		var out []*policy.Policy
		for i := range n {
			out = append(out, of(i))
		}
		slices.SortFunc(out, policy.Compare)
		return out
	}
}
