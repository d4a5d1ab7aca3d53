package oracle

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Difference is a flow about which not all judges say the same, or a scenario that one of them cannot read.
type Difference struct {
	Scenario  *Scenario
	Direction policy.Direction
	Flow      policy.Flow // the zero value: the scenario cannot be read
	Who       string      // the judge that differs
	Answers   string
}

// court is all the judges of one scenario. The first is the reference.
type court struct {
	scenario *Scenario
	cluster  *reference.Cluster
	seats    []seat
	quirks   []string // that mattered, each with its judge
}

// seat is a judge and whom it is to agree with.
type seat struct {
	name string
	judge
	reference int // index of the seat
}

// convene lets all judges read a scenario. One that cannot is a Difference.
func convene(s *Scenario) (c *court, diff *Difference) {
	c = &court{scenario: s, cluster: s.Cluster()}
	who := "kidoban"
	defer func() {
		if p := recover(); p != nil {
			c, diff = nil, &Difference{Scenario: s, Who: who, Answers: fmt.Sprintf("%s panics: %v\n", who, p)}
		}
	}()
	k, err := runKidoban(s)
	if err != nil {
		return nil, &Difference{Scenario: s, Who: who, Answers: err.Error() + "\n"}
	}
	engine, err := newEngineJudge(k)
	if err != nil {
		return nil, &Difference{Scenario: s, Who: who, Answers: err.Error() + "\n"}
	}
	reference := c.seat("cluster", clusterJudge{c.cluster}, 0)
	for _, what := range []string{untold(c.cluster, k), k.leftover()} {
		if what != "" {
			return nil, &Difference{Scenario: s, Who: who, Answers: what}
		}
	}
	c.seat("engine", engine, reference)
	c.seat("maps", mapsJudge{kidoban: k, own: ownNodeOf(c.cluster)}, reference)
	enforced := enforcedOf(c.cluster)
	c.seatForeign(&who, "", enforced, reference)
	if len(enforced.Policies)+len(enforced.ClusterPolicies) == len(c.cluster.Policies)+len(c.cluster.ClusterPolicies) {
		return c, nil
	}
	who = "kidoban"
	all, ifEnforced := *c.cluster, *engine
	all.EnforceAudited, ifEnforced.ifEnforced = true, true
	reference = c.seat("cluster"+audit, clusterJudge{&all}, len(c.seats))
	c.seat("engine"+audit, &ifEnforced, reference)
	c.seat("maps"+audit, mapsJudge{kidoban: k, own: ownNodeOf(c.cluster), ifEnforced: true}, reference)
	c.seatForeign(&who, audit, c.cluster, reference)
	return c, nil
}

// audit follows the names of judges that are asked what would be if audited policies were enforced.
const audit = ", if audited policies were enforced"

// enforcedOf is a cluster without its audited policies.
func enforcedOf(c *reference.Cluster) *reference.Cluster {
	out := *c
	out.Policies = slices.DeleteFunc(slices.Clone(c.Policies), func(np networkingv1.NetworkPolicy) bool { return policy.IsLabelledAudit(np.Labels) })
	out.ClusterPolicies = slices.DeleteFunc(slices.Clone(c.ClusterPolicies), func(p cnp.ClusterNetworkPolicy) bool { return policy.IsLabelledAudit(p.Labels) })
	return &out
}

// seatForeign lets the judges of others read a cluster; who is the one that does. They do not know the label of audited policies.
func (c *court) seatForeign(who *string, suffix string, cluster *reference.Cluster, reference int) {
	if len(c.cluster.ClusterPolicies) == 0 { // it does not know the kind, nor nodes, which are drawn with it
		*who = "cyclonus"
		c.seat(*who+suffix, newCyclonus(c.adapt(*who, cluster, cyclonusQuirks), cyclonusQuirks), reference)
	}
	*who = "kube-network-policies"
	c.seat(*who+suffix, newKubeNetworkPolicies(c.adapt(*who, cluster, knpQuirks), knpQuirks), reference)
}

func (c *court) seat(name string, j judge, reference int) int {
	c.seats = append(c.seats, seat{name, j, reference})
	return len(c.seats) - 1
}

func (c *court) adapt(who string, cluster *reference.Cluster, quirks []*quirk) *reference.Cluster {
	adapted, applied := adapt(cluster, quirks)
	for _, q := range applied {
		c.quirks = append(c.quirks, who+": "+q.name)
	}
	return adapted
}

// untold says which policy has no PolicyEndpoint or ClusterPolicyEndpoint, or a problem that it should not have.
func untold(c *reference.Cluster, k *kidoban) string {
	problems := k.problems()
	expected := map[types.NamespacedName][]string{} // the reasons that a policy's problems may have
	for i := range c.Policies {
		expected[nameOf(&c.Policies[i])] = []string{v1alpha1.ReasonUnresolvedNamedPort}
	}
	for i := range c.ClusterPolicies {
		expected[types.NamespacedName{Name: c.ClusterPolicies[i].Name}] = []string{v1alpha1.ReasonUnresolvedNamedPort, v1alpha1.ReasonInvalidPeer, v1alpha1.ReasonInvalidPort}
	}
	for name, reasons := range expected {
		list, ok := problems[name]
		if !ok {
			return fmt.Sprintf("policy %s has no endpoint\n", name)
		}
		for _, p := range list {
			if !slices.Contains(reasons, p.Reason) {
				return fmt.Sprintf("policy %s: unexpected problem %s: %s\n", name, p.Reason, p.Message)
			}
		}
	}
	if len(problems) != len(expected) {
		return fmt.Sprintf("%d endpoints for %d policies\n", len(problems), len(expected))
	}
	return ""
}

// ask asks every judge about both directions of a flow.
func (c *court) ask(f policy.Flow, yield func(seat int, byReference verdict)) *Difference {
	for _, d := range policy.Directions {
		said := make([]verdict, len(c.seats))
		for i := range c.seats {
			said[i] = c.seats[i].ask(d, f)
			if !said[i].agrees(said[c.seats[i].reference]) {
				return c.difference(c.seats[i].name, d, f)
			}
			if yield != nil {
				yield(i, said[0])
			}
		}
	}
	return nil
}

// ask counts a panic as an answer that differs from all others.
func (s *seat) ask(d policy.Direction, f policy.Flow) (v verdict) {
	defer func() {
		if p := recover(); p != nil {
			v = verdict{why: fmt.Sprintf("panics: %v", p)}
		}
	}()
	return s.judge.judge(d, f)
}

func (c *court) difference(who string, d policy.Direction, f policy.Flow) *Difference {
	var answers strings.Builder
	for i := range c.seats {
		fmt.Fprintf(&answers, "%-40s %v\n", c.seats[i].name, c.seats[i].ask(d, f))
	}
	return &Difference{Scenario: c.scenario, Direction: d, Flow: f, Who: who, Answers: answers.String()}
}

// again looks whether a scenario still shows the difference.
func (d *Difference) again(s *Scenario) (*Difference, bool) {
	c, diff := convene(s)
	if diff == nil && d.Flow != (policy.Flow{}) {
		diff = c.ask(d.Flow, nil)
	}
	same := diff != nil && diff.Who == d.Who && diff.Flow == d.Flow && diff.Direction == d.Direction
	return diff, same
}
