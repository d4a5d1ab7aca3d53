package resolver

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// TestFillIsExact draws events, resolves policies in steps with other events between them, and compares the resolver with one
// that gets the current objects at once.
func TestFillIsExact(t *testing.T) {
	steps, forgotten := 0, 0
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			d := dice{rand.New(rand.NewPCG(seed, 2))}
			options := Options{SharedNamespace: "kidoban", MaxAddresses: propertyMax}
			m := &model{
				map[string]map[string]string{}, map[types.NamespacedName]Pod{}, map[types.NamespacedName]*networkingv1.NetworkPolicy{},
				map[types.NamespacedName]*networkingv1.NetworkPolicy{}, map[string]*cnp.ClusterNetworkPolicy{}, map[string]Node{},
			}
			r := New(options)
			r.fillAtOnce = 1
			r.Start(Existing{})
			before := snap(r)
			check := func(what happening, changes Changes) {
				t.Helper()
				after := snap(r)
				checkChanges(t, what, before, after, changes)
				checkSlices(t, after)
				before = after
				for unused := changes.Unused; len(unused) > 0; {
					what, changes := happening{name: fmt.Sprint("forget ", unused[0])}, r.Forget(unused[0])
					unused = unused[1:]
					if len(changes.Unused) > 0 && d.IntN(4) == 0 { // another change between two steps
						forgotten++
						checkChanges(t, what, before, snap(r), changes)
						before, unused = snap(r), append(unused, changes.Unused...)
						what, changes = podEvent(d, m, r)
					}
					after := snap(r)
					checkChanges(t, what, before, after, changes)
					before, unused = after, append(unused, changes.Unused...)
				}
				if t.Failed() {
					t.Fatalf("after: %s", what.name)
				}
			}
			for step := range 60 {
				if step%3 > 0 {
					check(event(d, m, r, int64(step)))
				}
				np := d.policy(int64(step))
				key := types.NamespacedName{Namespace: np.Namespace, Name: np.Name}
				p := Prepare(NetworkPolicy(np))
				for more := true; more; {
					var changes Changes
					changes, more = r.Fill(p)
					check(happening{name: "fill for " + key.String()}, changes)
					if more {
						steps++
						if d.IntN(2) == 0 {
							check(podEvent(d, m, r))
						}
					}
				}
				m.policies[key] = np
				delete(m.broken, key)
				check(happening{name: "policy " + key.String()}, r.SetPreparedPolicy(p))
				if step%10 == 9 {
					checkRebuilt(t, d, m, options, before)
					checkMembers(t, m, before)
					checkStats(t, r, before)
				}
			}
		})
	}
	if steps < 500 || forgotten < 20 {
		t.Errorf("%d steps to fill and %d events while a group is forgotten, want more", steps, forgotten)
	}
}

// podEvent is an event that may come between the steps of an edit.
func podEvent(d dice, m *model, r *Resolver) (happening, Changes) {
	if d.IntN(4) == 0 {
		name, labels := d.namespace(), randomLabels(d.Rand)
		m.namespaces[name] = labels
		return happening{name: fmt.Sprintf("namespace %s %v", name, labels)}, r.SetNamespace(name, labels)
	}
	p := d.pod(d.podKey())
	if _, ok := m.pods[p.Key]; ok && d.IntN(3) == 0 {
		delete(m.pods, p.Key)
		return happening{name: "delete pod " + p.Key.String()}, r.DeletePod(p.Key)
	}
	m.pods[p.Key] = p
	return happening{name: fmt.Sprintf("pod %v", p)}, r.SetPod(p)
}

// A policy beyond the budget of addresses makes no group, and one within it is in force as without steps.
func TestFillCountsFirst(t *testing.T) {
	for _, peers := range []int{3, 4} {
		r := budgeted(Budget{Addresses: 100}, 30)
		r.fillAtOnce = 10
		p := Prepare(NetworkPolicy(r.age(greedy("a", 0, peers), 1)))
		steps, written := 0, map[types.NamespacedName]struct{}{}
		for more := true; more; steps++ {
			var c Changes
			c, more = r.Fill(p)
			for _, s := range c.Slices {
				written[s.Name] = struct{}{}
			}
			if len(c.Endpoints) > 0 {
				t.Errorf("step %d changed %v", steps, c.Endpoints)
			}
		}
		r.SetPreparedPolicy(p)
		direct := budgeted(Budget{Addresses: 100}, 30)
		direct.SetPolicy(direct.age(greedy("a", 0, peers), 1))
		got, want := state(t, r, "a"), state(t, direct, "a")
		if got != want || (want == "-") != (peers == 4) {
			t.Errorf("%d peers: in force %s, without steps %s", peers, got, want)
		}
		if diff := cmp.Diff(memberSizes(snap(direct).members(t)), memberSizes(snap(r).members(t))); diff != "" {
			t.Error(diff)
		}
		if over := want == "-"; over != (len(written) == 0) {
			t.Errorf("%d peers: %d slices were written before the policy", peers, len(written))
		}
		if want == "a" && steps < 5 {
			t.Errorf("%d steps", steps)
		}
	}
}

func memberSizes(groups map[policy.GroupKey]map[v1alpha1.CIDR]bool) (out []int) {
	for _, members := range groups {
		out = append(out, len(members))
	}
	slices.Sort(out)
	return out
}

// A policy that changes before it is in force leaves no group behind.
func TestFillStops(t *testing.T) {
	r := budgeted(Budget{}, 30)
	r.fillAtOnce = 10
	r.Fill(Prepare(NetworkPolicy(r.age(greedy("a", 0, 3), 1))))
	if len(r.groups) == 0 {
		t.Fatal("no group was made")
	}
	c := r.SetPolicy(r.age(greedy("a", 10, 1), 1))
	for unused := c.Unused; len(unused) > 0; {
		unused = append(unused[1:], r.Forget(unused[0]).Unused...)
	}
	if len(r.groups) != 1 || state(t, r, "a") != "a" {
		t.Errorf("%d groups", len(r.groups))
	}
}

// Policies that wait for room, and whose groups may have many addresses, are set again by the caller.
func TestFillPoliciesThatWait(t *testing.T) {
	r := budgeted(Budget{Addresses: 100}, 30)
	r.fillAtOnce = 10
	a, b, c := r.age(greedy("a", 0, 3), 1), r.age(greedy("b", 3, 3), 2), r.age(greedy("c", 6, 3), 3)
	set := func(s *Source) (again []*Source) {
		p := Prepare(s)
		for more := true; more; {
			_, more = r.Fill(p)
		}
		return r.SetPreparedPolicy(p).Again
	}
	for _, np := range []*networkingv1.NetworkPolicy{a, b, c} {
		if again := set(NetworkPolicy(np)); len(again) > 0 {
			t.Errorf("%s: %d policies again, though there is no more room", np.Name, len(again))
		}
	}
	if got := state(t, r, "a", "b", "c"); got != "a--" {
		t.Errorf("in force: %s", got)
	}
	again := r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "a"}).Again
	if len(again) != 2 || again[0].NetworkPolicy != b || again[1].NetworkPolicy != c {
		t.Fatalf("again: %v", again)
	}
	for len(again) > 0 {
		again = append(again[1:], set(again[0])...)
	}
	if got := state(t, r, "b", "c"); got != "b-" {
		t.Errorf("in force: %s", got)
	}
}

// A large group is forgotten in steps, and a policy that asks for it meanwhile has all of it.
func TestHostileALargeGroupIsForgottenInSteps(t *testing.T) {
	r := budgeted(Budget{}, 30)
	r.fillAtOnce = 10
	a := r.age(greedy("a", 0, 1), 1)
	r.SetPolicy(a)
	want := memberSizes(snap(r).members(t))
	for _, again := range []bool{false, true} {
		unused := r.DeletePolicy(types.NamespacedName{Namespace: "evil", Name: "a"}).Unused
		if len(unused) != 1 {
			t.Fatalf("unused: %v", unused)
		}
		steps := 0
		for ; len(unused) > 0 && (!again || steps < 1); steps++ {
			unused = r.Forget(unused[0]).Unused
		}
		if !again && (steps < 3 || len(r.groups) != 0) {
			t.Errorf("%d steps, %d groups", steps, len(r.groups))
		}
		r.SetPolicy(a)
		if diff := cmp.Diff(want, memberSizes(snap(r).members(t))); diff != "" {
			t.Error(diff)
		}
	}
}
