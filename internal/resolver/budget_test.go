package resolver

import (
	"fmt"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// greedy is a policy with peers that each select all pods of all namespaces, by a selector without a meaning.
func greedy(name string, first, peers int) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: name, UID: types.UID(name)}}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	np.Spec.Ingress = make([]networkingv1.NetworkPolicyIngressRule, 1)
	for i := range peers {
		selector := &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{
			Key: fmt.Sprint("none", first+i), Operator: metav1.LabelSelectorOpDoesNotExist,
		}}}
		np.Spec.Ingress[0].From = append(np.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{}, PodSelector: selector})
	}
	return np
}

func (r *Resolver) age(np *networkingv1.NetworkPolicy, seconds int64) *networkingv1.NetworkPolicy {
	np.CreationTimestamp = metav1.NewTime(time.Unix(seconds, 0))
	return np
}

// budgeted is a resolver with a budget, and pods in the namespace other.
func budgeted(b Budget, pods int) *Resolver {
	r := New(Options{SharedNamespace: "kidoban", MaxAddresses: 100, Budget: b})
	r.Start(Existing{})
	for _, ns := range []string{"evil", "other", "kidoban"} {
		r.SetNamespace(ns, map[string]string{"kubernetes.io/metadata.name": ns})
	}
	for i := range pods {
		r.SetPod(runningPod("other", fmt.Sprint("p", i), i, map[string]string{"app": "web"}))
	}
	return r
}

// state is which of the policies of the namespace evil are in force (a), over the budget (-), or over it with a version before
// that stays in force (A).
func state(t *testing.T, r *Resolver, names ...string) string {
	t.Helper()
	out := ""
	for _, name := range names {
		e := r.endpointOf(t, "evil", name)
		over := len(e.Problems) > 0 && e.Problems[0].Reason == v1alpha1.ReasonOverBudget
		if e.Spec == nil || len(e.Spec.PolicyTypes) == 0 {
			t.Errorf("policy %s isolates nothing", name)
		}
		switch rules := len(e.Spec.Ingress) + len(e.Spec.Egress); {
		case over && rules == 0:
			out += "-"
		case over:
			out += strings.ToUpper(name)
		case rules == 0:
			t.Errorf("policy %s has no rules and no reason: %v", name, e.Problems)
		default:
			out += name
		}
	}
	return out
}

func snapshotOf(r *Resolver) Existing { return snap(r).existing() }

// restart gives the namespaces, pods and policies of a resolver to a new one, with the objects that the first one wrote.
func restart(r *Resolver) *Resolver {
	next, _ := restartWith(r, snapshotOf(r))
	return next
}

// restartWith is restart with other objects.
func restartWith(r *Resolver, existing Existing) (*Resolver, Changes) {
	next := New(r.options)
	for name, ns := range r.namespaces {
		next.SetNamespace(name, ns.labels)
		for _, p := range ns.pods {
			next.SetPod(p.Pod)
		}
	}
	for _, p := range r.policies {
		next.Set(p.source)
	}
	return next, next.Start(existing)
}

func TestHostileGroupsOfANamespaceAreBounded(t *testing.T) {
	r := budgeted(Budget{Groups: 10}, 3)
	r.SetPolicy(r.age(greedy("a", 0, 6), 1))
	r.SetPolicy(r.age(greedy("b", 6, 5), 2))
	r.SetPolicy(r.age(greedy("c", 0, 6), 3)) // the groups of a
	r.SetPolicy(r.age(greedy("d", 20, 11), 4))
	expect := func(r *Resolver, want string) {
		t.Helper()
		if got := state(t, r, "a", "b", "c", "d"); got != want {
			t.Errorf("in force: %s, want %s", got, want)
		}
	}
	expect(r, "a-c-")
	if e := r.endpointOf(t, "evil", "b"); !strings.Contains(e.Problems[0].Message, "11 groups") || !strings.Contains(e.Problems[0].Message, "10 at most") {
		t.Errorf("%v", e.Problems)
	}
	expect(restart(r), "a-c-")

	// What others ask for, and however many pods there are, changes nothing.
	other := greedy("x", 30, 10)
	other.Namespace = "other"
	r.SetPolicy(other)
	for i := range 50 {
		r.SetPod(runningPod("other", fmt.Sprint("q", i), 100+i, map[string]string{"app": "web"}))
	}
	expect(r, "a-c-")

	// An edit that does not fit leaves the version before in force, and the others.
	r.SetPolicy(r.age(greedy("a", 0, 12), 1))
	expect(r, "A-c-")
	expect(restart(r), "A-c-")
	if e := r.endpointOf(t, "evil", "a"); len(e.Groups) != 6 {
		t.Errorf("%d groups", len(e.Groups))
	}
	// Where there is room again, the oldest gets it.
	r.SetPolicy(r.age(greedy("a", 0, 5), 1))
	r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "c"})
	if got := state(t, r, "a", "b", "d"); got != "ab-" {
		t.Errorf("in force: %s", got)
	}
	// Others do not pay for the namespace, and nothing is left of it.
	for _, name := range []string{"a", "b", "d"} {
		r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: name})
	}
	if len(r.tenants) != 1 {
		t.Errorf("%d namespaces are charged", len(r.tenants))
	}
}

// A policy in force does not lose its place to one that is older by its creation time, which its author may see later.
func TestHostileAnEditDoesNotTakeTheRoomOfPoliciesInForce(t *testing.T) {
	r := budgeted(Budget{Groups: 10}, 3)
	r.SetPolicy(r.age(greedy("a", 0, 2), 1))
	r.SetPolicy(r.age(greedy("b", 2, 8), 2))
	r.SetPolicy(r.age(greedy("a", 20, 3), 1))
	for range 2 {
		if got := state(t, r, "a", "b"); got != "Ab" {
			t.Errorf("in force: %s", got)
		}
		r = restart(r)
	}
}

func TestHostileAddressesOfGroupsAreBounded(t *testing.T) {
	r := budgeted(Budget{Addresses: 100}, 30)
	r.SetPolicy(r.age(greedy("a", 0, 3), 1)) // 90 addresses
	r.SetPolicy(r.age(greedy("b", 3, 1), 2))
	r.SetPolicy(r.age(greedy("c", 0, 1), 3))
	expect := func(want string) {
		t.Helper()
		if got := state(t, r, "a", "b", "c"); got != want {
			t.Errorf("in force: %s, want %s", got, want)
		}
	}
	expect("a-c")
	if e := r.endpointOf(t, "evil", "b"); !strings.Contains(e.Problems[0].Message, "more than 100 addresses") {
		t.Errorf("%v", e.Problems)
	}
	// Others' pods that come push nothing in force over.
	for i := range 50 {
		r.SetPod(runningPod("other", fmt.Sprint("q", i), 100+i, nil))
	}
	expect("a-c")
	r = restart(r)
	expect("a-c")
	r.SetPolicy(r.age(greedy("c", 1, 1), 3)) // an edit to another group in force
	expect("a-c")
	r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "a"})
	if got := state(t, r, "b", "c"); got != "-c" { // two of 80 addresses would be 160
		t.Errorf("in force: %s", got)
	}
	r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "c"})
	if got := state(t, r, "b"); got != "b" {
		t.Errorf("in force: %s", got)
	}
}

// A port name counts the same whatever numbers pods give to it.
func TestHostilePortNamesAreBounded(t *testing.T) {
	names := func(name string, first, count int) *networkingv1.NetworkPolicy {
		np := parsePolicy(t, "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: 53}]}]}")
		for i := range count {
			np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
				To:    []networkingv1.NetworkPolicyPeer{{NamespaceSelector: &metav1.LabelSelector{}}},
				Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{Type: intstr.String, StrVal: fmt.Sprint("n", first+i)}}},
			})
		}
		return named(np, "evil", name, name)
	}
	r := budgeted(Budget{Groups: 1 + 4*numbersOfNamespace}, 3)
	r.SetPolicy(names("a", 0, 4))
	r.SetPolicy(names("b", 4, 1))
	if got := state(t, r, "a", "b"); got != "a-" {
		t.Errorf("in force: %s", got)
	}
	for i := range 40 {
		p := runningPod("other", fmt.Sprint("q", i), 100+i, nil)
		p.Ports = []policy.NamedPort{{Protocol: policy.TCP, Name: fmt.Sprint("n", i%5), Port: uint16(1000 + i)}}
		r.SetPod(p)
	}
	for range 2 {
		if got := state(t, r, "a", "b"); got != "a-" {
			t.Errorf("in force: %s", got)
		}
		r = restart(r)
	}
}

// One more pod in the cluster costs a bounded number of writes, whatever the policies of one namespace say: beside the two slices
// with the pod's address, one for each 50 groups, if their lists change.
func TestHostileOnePodCausesABoundedNumberOfWrites(t *testing.T) {
	const groups = 500
	r := budgeted(Budget{Groups: groups, Addresses: 1_000_000}, 200)
	for i := range 16 { // 8,000 peers
		r.SetPolicy(r.age(greedy(fmt.Sprint("p", i), 500*i, 500), int64(i)))
	}
	ports := parsePolicy(t, "{podSelector: {}, policyTypes: [Egress]}")
	for i := range 2000 {
		ports.Spec.Egress = append(ports.Spec.Egress, networkingv1.NetworkPolicyEgressRule{
			Ports: []networkingv1.NetworkPolicyPort{{Port: &intstr.IntOrString{Type: intstr.String, StrVal: fmt.Sprint("n", i)}}},
		})
	}
	r.SetPolicy(named(ports, "evil", "ports", "ports"))
	const most = 2 + groups/50
	worst := 0
	for i := range 300 {
		p := runningPod("other", fmt.Sprint("q", i), 1000+i, map[string]string{"app": "web"})
		for n := range 4 {
			p.Ports = append(p.Ports, policy.NamedPort{Protocol: policy.TCP, Name: fmt.Sprint("n", (4*i+n)%2000), Port: uint16(2000 + i)})
		}
		for _, c := range []Changes{r.SetPod(p), r.DeletePod(p.Key), r.SetPod(p)} {
			worst = max(worst, len(c.Slices)+len(c.Endpoints))
		}
	}
	t.Logf("a pod's event writes up to %d objects", worst)
	if worst > most {
		t.Errorf("a pod's event writes %d objects, want %d at most", worst, most)
	}
}
