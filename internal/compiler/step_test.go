package compiler

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

func podAt(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 9, byte(i >> 8), byte(i)}) }

func installed(changes Changes) []netip.Addr {
	var out []netip.Addr
	for _, w := range changes.Pods {
		out = append(out, w.Key)
	}
	return out
}

// A set whose rows take many steps is written in parts, and its pod has its entry of before until the last.
func TestAPodChangesWhenItsSetIsComplete(t *testing.T) {
	c := New()
	c.SetPod("shop/p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{ingress("before", onPort(policy.Rule{Everyone: true}, tcp(22, 22)))}})
	c.Commit()
	c.SetPod("shop/p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{overlappingRules("after", 40, 1, 4, 0)}})
	steps, most := 0, 0
	for more := true; more; steps++ {
		if d := decide(c, nth(0).Addr(), 22); d.Action != policy.Allow {
			t.Fatalf("%v after %d steps, and the set is not complete", d, steps)
		}
		before := c.work
		_, more = c.Step(200)
		if steps > 0 {
			most = max(most, c.work-before)
		}
	}
	if d := decide(c, nth(0).Addr(), 22); d.Action == policy.Allow {
		t.Errorf("%v after the last step", d)
	}
	if d := decide(c, nth(0).Addr(), 9); d.Action != policy.Allow {
		t.Errorf("%v after the last step", d)
	}
	if steps < 10 || most > 4000 {
		t.Errorf("%d steps, the most expensive of %d", steps, most)
	}
}

// While a namespace's policies take long, the pods of others do not wait, and a pod that is asked for comes first.
func TestAnExpensiveNamespaceDelaysItself(t *testing.T) {
	small := ingress("small", onPort(policy.Rule{Everyone: true}, tcp(22, 22)))
	c := New()
	for i := range 20 {
		c.SetPod(fmt.Sprint("evil/", i), PodSpec{Addresses: []netip.Addr{podAt(i)}, Policies: []*policy.Policy{overlappingRules(fmt.Sprint("p", i), 60, 1, 10, 0)}})
	}
	for i := range 5 {
		c.SetPod(fmt.Sprint("good/", i), PodSpec{Addresses: []netip.Addr{podAt(100 + i)}, Policies: []*policy.Policy{small}})
	}
	const step = 20_000
	done := map[netip.Addr]int{}
	n := 0
	for more := true; more; n++ {
		if n == 4 {
			c.SetPod("late/0", PodSpec{Addresses: []netip.Addr{podAt(200)}, Policies: []*policy.Policy{small}})
		}
		var first []string
		if n >= 2 {
			first = []string{"evil/19"}
		}
		var changes Changes
		changes, more = c.Step(step, first...)
		for _, addr := range installed(changes) {
			done[addr] = n
		}
	}
	if len(done) != 26 || n < 20 {
		t.Fatalf("%d pods are done after %d steps", len(done), n)
	}
	for i := range 5 {
		if at := done[podAt(100+i)]; at > 2 {
			t.Errorf("pod %d of a namespace that costs little comes in step %d of %d", i, at, n)
		}
	}
	if at := done[podAt(200)]; at > 5 {
		t.Errorf("a pod that came in step 4 is done in %d of %d", at, n)
	}
	for i := range 19 {
		if done[podAt(i)] < done[podAt(19)] && done[podAt(i)] > 3 {
			t.Errorf("evil/%d comes in step %d, before the pod that is first, in %d", i, done[podAt(i)], done[podAt(19)])
		}
	}
}

// An address that goes from one pod to another has an entry all the time, though steps are taken one by one.
func TestAnAddressMovesInOneStep(t *testing.T) {
	c := New()
	spec := func(i int, name string) PodSpec {
		return PodSpec{Addresses: []netip.Addr{podAt(i)}, Policies: []*policy.Policy{overlappingRules(name, 10, 1, 2, 0)}}
	}
	for i := range 4 {
		c.SetPod(fmt.Sprint("shop/", i), spec(i, fmt.Sprint("p", i)))
	}
	c.Commit()
	c.DeletePod("shop/0")
	for i := 1; i < 4; i++ {
		c.SetPod(fmt.Sprint("shop/", i), spec(i-1, fmt.Sprint("q", i)))
	}
	mirror := cloneMaps(c.Maps())
	for more := true; more; {
		var changes Changes
		changes, more = c.Step(1)
		changes.steps(mirror, func() {
			for i := range 3 {
				if _, ok := mirror.Pods[podAt(i)]; !ok {
					t.Fatalf("%v has no entry", podAt(i))
				}
			}
		})
	}
	checkEqual(t, "mirror", mirror, c.Maps())
	if _, ok := c.Maps().Pods[podAt(3)]; ok {
		t.Error("the last address is no pod's and has an entry")
	}
}

// A pod that changes again, or goes, while its set is not complete leaves nothing behind.
func TestAPodChangesWhileItsSetIsIncomplete(t *testing.T) {
	c := New()
	set := func(name string) {
		c.SetPod("shop/p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: []*policy.Policy{overlappingRules(name, 40, 1, 4, 0)}})
	}
	for i := range 5 {
		set(fmt.Sprint("p", i))
		c.Step(100)
		c.Step(100)
		if i%2 == 0 {
			c.Collect()
		}
	}
	set("p0")
	c.Commit()
	if got := c.Set(c.Maps().Pods[podAddr].Sets[policy.Ingress]); len(got) != 1 || got[0].ID.Name != "p0" {
		t.Errorf("in force: %v", got)
	}
	set("p9")
	c.Step(100)
	c.DeletePod("shop/p")
	checkNothingLeft(t, c, &world{})
	if len(c.waiting)+len(c.unfinished)+len(c.matching)+len(c.spent) > 0 {
		t.Error("something waits")
	}
}

// What does not fit takes many steps to find out, and others do not wait for it.
func TestMeasuringTakesManySteps(t *testing.T) {
	budget := DefaultBudget
	budget.Ports = 5000
	c := New(WithBudget(budget))
	evil := func(i int) {
		c.SetPod(fmt.Sprint("evil/", i), PodSpec{Addresses: []netip.Addr{podAt(i)}, Policies: []*policy.Policy{overlappingRules(fmt.Sprint("p", i), 60, 1, 20, 0)}})
	}
	for i := range 3 {
		evil(i)
	}
	n, done, most := 0, 0, 0
	for more := true; more; n++ {
		if n == 5 {
			c.SetPod("good/p", PodSpec{Addresses: []netip.Addr{podAt(100)}, Policies: []*policy.Policy{ingress("small", onPort(policy.Rule{Everyone: true}, tcp(22, 22)))}})
		}
		before := c.work
		var changes Changes
		changes, more = c.Step(500)
		most = max(most, c.work-before)
		for _, addr := range installed(changes) {
			if addr == podAt(100) {
				done = n
			}
		}
	}
	if problems := c.Problems(); len(problems) != 3 {
		t.Errorf("problems %+v", problems)
	}
	if done < 5 || done > 6 || n < 20 || most > 6000 {
		t.Errorf("done in step %d of %d, the most expensive of %d", done, n, most)
	}
	for i := range 3 {
		if _, ok := c.Maps().Pods[podAt(i)]; !ok {
			t.Errorf("evil/%d has no entry", i)
		}
	}
	// a pod that goes meanwhile
	c.DeletePod("evil/0")
	evil(3)
	c.Step(500)
	c.Step(500)
	if len(c.fittings) != 1 {
		t.Fatalf("%d policies are being measured", len(c.fittings))
	}
	c.DeletePod("evil/3")
	c.Commit()
	if _, ok := c.Maps().Pods[podAt(3)]; ok || len(c.fittings)+len(c.uncompiled) > 0 {
		t.Errorf("something is left of a pod that went while its policy was measured")
	}
}

// Whatever one tenant's policies are, no Step takes much longer than it should, and another tenant's new pod is under its policies after two.
func TestNoStepOfALargeSetIsLong(t *testing.T) {
	const step, mostWork, mostSteps = 50_000, 200_000, 2
	manyExcepts := func(i int) *policy.Policy {
		p := ingress(fmt.Sprint("p", i))
		for r := range mostRules {
			peer := policy.Peer{CIDR: everywhere}
			for k := range mostExcepts {
				peer.Except = append(peer.Except, nth((i*mostRules+r)*mostExcepts+k))
			}
			p.Rules[policy.Ingress] = append(p.Rules[policy.Ingress], onPort(policy.Rule{Peers: policy.ListPeers(peer)}, tcp(uint16(r%4), uint16(r%4))))
		}
		return p
	}
	for _, tc := range []struct {
		name     string
		policies []*policy.Policy
	}{
		{"19,200 prefixes", many(3, manyExcepts)()},
		{"overlapping ports", many(5, func(i int) *policy.Policy { return overlappingRules(fmt.Sprint("p", i), mostRules, 1, 80, i%3*1000) })()},
		{"one policy in force", one(overlappingRules("p", mostRules, mostExcepts, 1, 0))()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := New()
			c.SetPod("evil/p", PodSpec{Addresses: []netip.Addr{podAddr}, Policies: tc.policies})
			worst, slowest, since := 0, 0, 0
			asked := -1
			for n, more := 0, true; more; n++ {
				if asked < 0 && n%3 == 1 {
					asked, since = n, n
					small := ingress(fmt.Sprint("small", n), onPort(policy.Rule{Peers: policy.ListPeers(policy.Peer{CIDR: nth(n)})}, tcp(22, 22)))
					c.SetPod("good/p", PodSpec{Addresses: []netip.Addr{podAt(n)}, Policies: []*policy.Policy{small}})
				}
				before := c.work
				_, more = c.Step(step)
				worst = max(worst, c.work-before)
				if asked >= 0 && !c.Pending("good/p") {
					slowest, asked = max(slowest, n-since+1), -1
				}
			}
			if worst > mostWork || slowest > mostSteps || asked >= 0 {
				t.Errorf("the longest Step takes %d, the slowest pod %d Steps", worst, slowest)
			}
			c.DeletePod("evil/p")
			c.DeletePod("good/p")
			for more := true; more; {
				before := c.work
				_, more = c.Step(step)
				worst = max(worst, c.work-before)
			}
			t.Logf("the longest Step takes %d; the slowest pod %d Steps", worst, slowest)
		})
	}
}
