package resolver

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// manyBlocks adds so many blocks to a policy, as peers with a port, that it and its PolicyEndpoint are large.
func manyBlocks(np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	rule := networkingv1.NetworkPolicyIngressRule{Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{IntVal: 80}}}}
	for i := range 600 {
		rule.From = append(rule.From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("192.0.%d.%d/32", i>>7, 2*i&255)}})
	}
	np.Spec.Ingress = append(np.Spec.Ingress, rule)
	return np
}

func outlining(b Budget) *Resolver {
	r := budgeted(b, 3)
	r.options.Outlines = true
	return r
}

// setOutlined sets a policy as a controller does whose cache has outlines.
func (r *Resolver) setOutlined(np *networkingv1.NetworkPolicy) Changes {
	return r.SetPreparedPolicy(PrepareOutline(NetworkPolicy(np)))
}

func wholeOf(t *testing.T, np *networkingv1.NetworkPolicy) *v1alpha1.PolicyEndpointSpec {
	t.Helper()
	r := budgeted(Budget{}, 3)
	r.SetPolicy(np)
	return r.endpointOf(t, np.Namespace, np.Name).Spec
}

func TestOutlinesAreEqualIfSpecsAre(t *testing.T) {
	np := manyBlocks(greedy("a", 0, 3))
	spec := wholeOf(t, np)
	outline := Outline(spec)
	if !IsOutline(outline) || IsOutline(spec) || Outline(outline) != outline || !SameSpec(spec, outline) || !SameSpec(outline, spec) {
		t.Errorf("outline %+v", outline)
	}
	keys := func(s *v1alpha1.PolicyEndpointSpec) []policy.GroupKey {
		return policy.GroupKeys("evil", "kidoban", s.Ingress)
	}
	if want := keys(spec); len(want) != 3 || !slices.Equal(keys(outline), want) {
		t.Errorf("groups %v, want %v", keys(outline), want)
	}
	if n, want := PeerCount(outline.Ingress), PeerCount(spec.Ingress); n != want || n != 603 {
		t.Errorf("%d peers, want %d", n, want)
	}
	data, err := json.Marshal(outline)
	if err != nil || strings.Contains(string(data), "192.0.") {
		t.Errorf("it has blocks: %s, %v", data, err)
	}
	np.Spec.Ingress[1].From[17].IPBlock.CIDR = "203.0.113.1/32"
	if SameSpec(wholeOf(t, np), outline) {
		t.Error("another block has the same outline")
	}
	small := wholeOf(t, greedy("a", 0, 3))
	if Outline(small) != small || SameSpec(small, outline) {
		t.Error("a small spec has an outline")
	}
}

func TestLargePoliciesAreKeptAsOutlines(t *testing.T) {
	r := outlining(Budget{})
	np := manyBlocks(greedy("a", 0, 3))
	np.Generation = 1
	c := r.setOutlined(np)
	e := r.endpointOf(t, "evil", "a")
	if len(c.Endpoints) != 1 || !IsOutline(e.Spec) || len(e.Groups) != 3 || len(e.Problems) > 0 {
		t.Fatalf("endpoint %+v", e)
	}
	if s, ok := r.Source(e.Name); !ok || !s.IsOutline() || r.policies[e.Policy].normalized != nil {
		t.Error("all of the policy is kept")
	}
	whole, ok := r.Whole(e.Name, Prepare(NetworkPolicy(np)))
	if diff := cmp.Diff(wholeOf(t, np), whole.Spec); !ok || diff != "" || !slices.Equal(whole.Groups, e.Groups) {
		t.Errorf("%t %s", ok, diff)
	}
	if c := r.setOutlined(np); len(c.Endpoints) > 0 {
		t.Error("the same version again changed the PolicyEndpoint")
	}
	edited := np.DeepCopy()
	edited.Generation = 2
	edited.Spec.Ingress = edited.Spec.Ingress[1:]
	if _, ok := r.Whole(e.Name, Prepare(NetworkPolicy(edited))); ok {
		t.Error("another version passes as the policy")
	}
	if c := r.setOutlined(edited); len(c.Endpoints) != 1 || len(c.Unused) != 3 {
		t.Errorf("after an edit: %v, unused %v", c, c.Unused)
	}
	if c := r.DeletePolicy(NetworkPolicy(np).Key()); len(c.Endpoints) != 1 || r.Stats().Policies != 0 {
		t.Errorf("after its deletion: %v", c)
	}
}

// A version before that is in force stays, until it has to be written once more: then the pods are isolated.
func TestHostileAVersionBeforeIsLost(t *testing.T) {
	r := outlining(Budget{Groups: 4})
	r.setOutlined(manyBlocks(greedy("a", 0, 3)))
	before := r.endpointOf(t, "evil", "a")
	now := manyBlocks(greedy("a", 0, 5))
	now.Generation = 1
	r.setOutlined(now)
	e := r.endpointOf(t, "evil", "a")
	if e.Spec != before.Spec || len(e.Groups) != 3 || e.Problems[0].Reason != v1alpha1.ReasonOverBudget {
		t.Fatalf("endpoint %+v", e)
	}
	if _, ok := r.Whole(e.Name, Prepare(NetworkPolicy(now))); ok {
		t.Error("the version before was made from the one now")
	}
	r.Lost(e.Name)
	c := r.setOutlined(now)
	e = r.endpointOf(t, "evil", "a")
	if len(c.Endpoints) != 1 || len(c.Unused) != 3 || len(e.Spec.Ingress)+len(e.Groups) > 0 || len(e.Spec.PolicyTypes) != 1 {
		t.Errorf("unused %v, endpoint %+v", c.Unused, e)
	}
	// A version that fits is written in any case, also if nothing of it changed.
	r.setOutlined(manyBlocks(greedy("a", 0, 3)))
	r.Lost(e.Name)
	if c := r.setOutlined(manyBlocks(greedy("a", 0, 3))); len(c.Endpoints) != 1 || !IsOutline(r.endpointOf(t, "evil", "a").Spec) {
		t.Errorf("changed %v", c)
	}
}

// outlineRestart is restart of a resolver that has outlines.
func outlineRestart(r *Resolver) (*Resolver, Changes) {
	existing := snapshotOf(r)
	for name, spec := range existing.Endpoints {
		existing.Endpoints[name] = Outline(spec)
	}
	return restartWith(r, existing)
}

// At the start, what is in force of large policies stays, with its place in the budget, until all of the policies are there.
func TestHostileARestartWithOutlinesChangesNothing(t *testing.T) {
	r := outlining(Budget{Groups: 10})
	policies := map[string]*networkingv1.NetworkPolicy{}
	for i, np := range []*networkingv1.NetworkPolicy{
		greedy("small", 0, 2), manyBlocks(greedy("large", 2, 6)), manyBlocks(greedy("over", 20, 3)), manyBlocks(greedy("edited", 8, 2)),
	} {
		policies[np.Name] = np
		r.setOutlined(r.age(np, int64(10-i)))
	}
	policies["edited"] = r.age(manyBlocks(greedy("edited", 30, 4)), 7)
	policies["edited"].Generation = 1
	r.setOutlined(policies["edited"])
	names := []string{"small", "large", "over", "edited"}
	expect := func(r *Resolver) {
		t.Helper()
		if got := strings.ToLower(state(t, r, names...)); got != "smalllarge-edited" {
			t.Errorf("in force: %s", got)
		}
		if e := r.endpointOf(t, "evil", "edited"); len(e.Groups) != 2 || e.Problems[0].Reason != v1alpha1.ReasonOverBudget {
			t.Errorf("edited: %+v", e)
		}
	}
	expect(r)
	next, changes := outlineRestart(r)
	for _, name := range []string{"large", "over", "edited"} {
		before, e := r.endpointOf(t, "evil", name), next.endpointOf(t, "evil", name)
		if !e.IsPending || !SameSpec(e.Spec, before.Spec) || !slices.Equal(e.Groups, before.Groups) {
			t.Errorf("%s is %+v", name, e)
		}
	}
	if got := next.tenant("evil").groups; got != 10 || len(changes.Again) != 3 {
		t.Errorf("%d groups are in use, again %d", got, len(changes.Again))
	}
	// Another policy takes no place in the meantime.
	next.SetPolicy(greedy("late", 50, 1))
	if got := state(t, next, "late"); got != "-" {
		t.Error("a new policy has a place of those in force")
	}
	next.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "late"})
	before := snap(next)
	for _, s := range changes.Again {
		c := next.setOutlined(policies[s.Name])
		if len(c.Slices)+len(c.Unused) > 0 {
			t.Errorf("%s: changed %v, unused %v", s.Name, c.Slices, c.Unused)
		}
		if len(c.Endpoints) != 1 {
			t.Errorf("%s: its PolicyEndpoint is not compared", s.Name)
		}
	}
	if diff := cmp.Diff(before.slices, snap(next).slices); diff != "" {
		t.Error(diff)
	}
	expect(next)
	for _, name := range names {
		if before, e := r.endpointOf(t, "evil", name), next.endpointOf(t, "evil", name); e.IsPending || !SameSpec(e.Spec, before.Spec) {
			t.Errorf("%s is %+v", name, e)
		}
	}
}

func TestALargePolicyThatIsDeletedWhileItIsPending(t *testing.T) {
	r := outlining(Budget{})
	r.setOutlined(manyBlocks(greedy("a", 0, 2)))
	next, _ := outlineRestart(r)
	name := next.endpointOf(t, "evil", "a").Name
	c := next.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "a"})
	if !slices.Equal(c.Endpoints, []types.NamespacedName{name}) || len(c.Unused) != 2 || len(next.tenants) != 0 {
		t.Errorf("changed %v, unused %v", c, c.Unused)
	}
	// Without a PolicyEndpoint there is nothing that stays.
	fresh := New(r.options)
	fresh.SetPolicy(OutlinePolicy(manyBlocks(greedy("a", 0, 2))))
	if c := fresh.Start(Existing{}); len(c.Again) != 1 || len(c.Endpoints) > 0 || fresh.Stats().Policies != 0 {
		t.Errorf("again %d, changed %v", len(c.Again), c)
	}
}

// A change of the pods' ports does not render large policies at once: they are set again in turn.
func TestLargePoliciesFollowNamedPorts(t *testing.T) {
	r := outlining(Budget{})
	np := manyBlocks(greedy("a", 0, 1))
	np.Spec.Ingress[1].Ports = append(np.Spec.Ingress[1].Ports, networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{Type: intstr.String, StrVal: "http"}})
	r.setOutlined(np)
	if e := r.endpointOf(t, "evil", "a"); len(e.Problems) != 1 || e.Problems[0].Reason != v1alpha1.ReasonUnresolvedNamedPort {
		t.Fatalf("problems %v", e.Problems)
	}
	p := runningPod("evil", "db", 77, nil)
	p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: "http", Port: 8080}}
	c := r.SetPod(p)
	if len(c.Again) != 1 || !c.Again[0].IsOutline() || len(c.Endpoints) > 0 {
		t.Fatalf("again %v, changed %v", c.Again, c)
	}
	if c := r.setOutlined(np); len(c.Endpoints) != 1 || len(r.endpointOf(t, "evil", "a").Problems) > 0 {
		t.Errorf("changed %v", c)
	}
}

// A policy over the budget waits without its content, and is asked for when there is room.
func TestLargePoliciesThatWaitForRoom(t *testing.T) {
	r := outlining(Budget{Groups: 4})
	a, b, c := manyBlocks(greedy("a", 0, 3)), manyBlocks(greedy("b", 3, 3)), manyBlocks(greedy("c", 10, 9))
	for i, np := range []*networkingv1.NetworkPolicy{a, b, c} {
		if again := r.setOutlined(r.age(np, int64(i))).Again; len(again) > 0 {
			t.Errorf("%s: again %v", np.Name, again)
		}
	}
	if waiting := r.tenant("evil").waiting[types.NamespacedName{Namespace: "evil", Name: "b"}]; waiting == nil || waiting.demands != nil {
		t.Errorf("b waits as %+v", waiting)
	}
	again := r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "a"}).Again
	if len(again) != 1 || again[0].Name != "b" { // c never fits
		t.Fatalf("again %v", again)
	}
	r.setOutlined(b)
	if got := state(t, r, "b", "c"); got != "b-" {
		t.Errorf("in force: %s", got)
	}
}

// What was not read must never mean that nothing is isolated.
func TestHostileAnOutlineIsolates(t *testing.T) {
	r := started()
	r.SetPolicy(OutlinePolicy(manyBlocks(greedy("a", 0, 1))))
	e := r.endpointOf(t, "evil", "a")
	if len(e.Spec.PolicyTypes) != 2 || len(e.Spec.Ingress)+len(e.Spec.Egress) > 0 || len(e.Problems) == 0 {
		t.Errorf("endpoint %+v", e)
	}
}

func TestHostileLargePodSelectorIsolates(t *testing.T) {
	r := started()
	np := greedy("a", 0, 1)
	requirement := metav1.LabelSelectorRequirement{Key: "app", Operator: metav1.LabelSelectorOpIn}
	for i := range maxPodSelector / 40 {
		requirement.Values = append(requirement.Values, fmt.Sprintf("%040d", i))
	}
	np.Spec.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{requirement}
	r.SetPolicy(np)
	e := r.endpointOf(t, "evil", "a")
	if len(e.Spec.PodSelector.MatchExpressions) > 0 || len(e.Spec.Ingress) > 0 || e.Problems[0].Reason != v1alpha1.ReasonTooLarge {
		t.Errorf("endpoint %+v", e)
	}
}

// Problems that a tenant makes without end are neither compared with each other nor kept without end.
func TestHostileNamesAndProblemsAreBounded(t *testing.T) {
	r := started()
	np := greedy("a", 0, 1)
	for i := range 30_000 {
		np.Spec.Ingress[0].Ports = append(np.Spec.Ingress[0].Ports, networkingv1.NetworkPolicyPort{Port: &intstr.IntOrString{Type: intstr.String, StrVal: fmt.Sprint("p", i)}})
	}
	r.SetPolicy(np)
	e := r.endpointOf(t, "evil", "a")
	if len(e.Problems) > maxProblems || len(r.policies[e.Policy].names) > maxNames {
		t.Errorf("%d problems, %d names", len(e.Problems), len(r.policies[e.Policy].names))
	}
}
