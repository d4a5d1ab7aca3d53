package inforce

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

var (
	epoch = time.Unix(1_800_000_000, 0)
	key   = types.NamespacedName{Namespace: "shop", Name: "db"}
)

func name(pod string) types.NamespacedName {
	return types.NamespacedName{Namespace: "shop", Name: pod}
}

func expect(t *testing.T, tr *Tracker, when string, generation int64, want string, gone ...string) {
	t.Helper()
	s, ok := tr.State(key, "uid", generation, func(node string) bool { return len(gone) == 0 || node != gone[0] })
	if got := fmt.Sprint(s.InForce, " of ", s.Total, " ", s.Missing, " ", s.Reason); !ok || got != want {
		t.Errorf("%s: %q, %t, want %q", when, got, ok, want)
	}
}

func TestState(t *testing.T) {
	tr := New()
	db := map[string]string{"app": "db"}
	tr.SetPod(name("a"), db, "n1")
	tr.SetPod(name("web"), map[string]string{"app": "web"}, "n3")
	tr.SetPolicy(key, "uid", 1, labels.SelectorFromSet(db), epoch)
	expect(t, tr, "one pod on a node without an agent", 1, "0 of 1 n1 NoAgent")
	if s, _ := tr.State(key, "uid", 1, func(string) bool { return true }); s.Silent != 1 {
		t.Errorf("%d nodes are silent", s.Silent)
	}
	tr.BeginFull("n1")
	tr.EndFull("n1")
	expect(t, tr, "its agent has started", 1, "0 of 1 n1 ")
	if changed := tr.SetPod(name("b"), db, "n2"); len(changed) != 1 {
		t.Errorf("another node: %v", changed)
	}
	if changed := tr.SetPod(name("c"), db, "n2"); len(changed) != 0 {
		t.Errorf("another pod of a node: %v", changed)
	}
	tr.BeginFull("n2")
	tr.Report("n2", key, Report{UID: "uid", Generation: 1}, false)
	expect(t, tr, "a full report that has not ended", 1, "0 of 2 n1 ")
	if concerned := tr.EndFull("n2"); len(concerned) != 1 {
		t.Errorf("the full report is about %v", concerned)
	}
	expect(t, tr, "n2 reports", 1, "1 of 2 n1 ")
	tr.Report("n1", key, Report{UID: "uid", Reason: "Waiting"}, false)
	expect(t, tr, "n1 waits", 1, "1 of 2 n1 Waiting")
	tr.Report("n1", key, Report{UID: "former", Generation: 5}, false)
	expect(t, tr, "n1 has an object that was deleted", 1, "1 of 2 n1 ")
	tr.Report("n1", key, Report{UID: "uid", Generation: 1}, false)
	expect(t, tr, "n1 reports", 1, "2 of 2  ")
	tr.SetPolicy(key, "uid", 2, labels.SelectorFromSet(db), epoch)
	expect(t, tr, "a new version", 2, "0 of 2 n1 ")
	if _, ok := tr.State(key, "uid", 1, func(string) bool { return true }); ok {
		t.Error("the former version has a state")
	}
	tr.Report("n2", key, Report{UID: "uid", Generation: 2}, false)
	expect(t, tr, "n1 is gone", 2, "1 of 1  ", "n1")
	if concerned := tr.DeleteNode("n1"); len(concerned) != 1 {
		t.Errorf("its policies are %v", concerned)
	}
	tr.SetPod(name("a"), nil, "")
	tr.SetPod(name("b"), map[string]string{"app": "web"}, "n2")
	expect(t, tr, "one pod left", 2, "1 of 1  ")
	tr.BeginFull("n2")
	tr.Ended("n2")
	expect(t, tr, "the stream ended in its full report", 2, "1 of 1  ")
	tr.BeginFull("n2")
	tr.EndFull("n2")
	expect(t, tr, "an empty full report", 2, "0 of 1 n2 ")
	tr.SetPod(name("c"), nil, "")
	expect(t, tr, "no pods", 2, "0 of 0  ")
	tr.DeletePolicy(key)
	tr.SetPod(name("b"), nil, "")
	tr.SetPod(name("web"), nil, "")
	if len(tr.namespaces) > 0 {
		t.Errorf("left behind: %v", tr.namespaces)
	}
}

// A node cannot fill the controller's memory.
func TestReportsAreBounded(t *testing.T) {
	tr := New()
	for i := range maxReported + 10 {
		tr.Report("n1", name(fmt.Sprint(i)), Report{Generation: 1}, false)
	}
	if n := len(tr.reports["n1"]); n != maxReported {
		t.Errorf("%d reports", n)
	}
}

func TestHolders(t *testing.T) {
	tr := New()
	db, web := map[string]string{"app": "db"}, map[string]string{"app": "web"}
	a, b := policy.GroupKey{Namespace: "shop", Name: "a"}, policy.GroupKey{Namespace: "kidoban", Name: "b"}
	other := types.NamespacedName{Namespace: "shop", Name: "web"}
	tr.SetPod(name("db"), db, "n1")
	tr.SetPod(name("web"), web, "n2")
	tr.SetPolicy(key, "uid", 1, labels.SelectorFromSet(db), epoch)
	tr.SetPolicy(other, "uid", 1, labels.SelectorFromSet(web), epoch)
	tr.SetGroups(key, []policy.GroupKey{a, b, a})
	tr.SetGroups(other, []policy.GroupKey{b})
	expect := func(when string, want []string, groups ...policy.GroupKey) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(tr.Holders(groups, nil))); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	expect("a group of one policy", []string{"n1"}, a)
	expect("a group of two policies", []string{"n1", "n2"}, b)
	expect("an unknown group", nil, policy.GroupKey{Namespace: "shop", Name: "c"})
	tr.SetGroups(key, []policy.GroupKey{b})
	expect("a group that is not used any more", nil, a)
	tr.SetPod(name("web"), nil, "")
	expect("a policy without pods", []string{"n1"}, b)
	tr.DeletePolicy(key)
	tr.DeletePolicy(other)
	expect("no policy", nil, a, b)
	if len(tr.uses.groups)+len(tr.uses.policies) > 0 {
		t.Errorf("left are %v", tr.uses)
	}
}

func TestClusterPolicies(t *testing.T) {
	tr := New()
	shop := labels.SelectorFromSet(labels.Set{"team": "shop"})
	cluster := types.NamespacedName{Name: "deny"}
	state := func(when, want string) {
		t.Helper()
		s, ok := tr.State(cluster, "uid", 1, func(string) bool { return true })
		if got := fmt.Sprint(s.InForce, " of ", s.Total); !ok || got != want {
			t.Errorf("%s: %q, %t, want %q", when, got, ok, want)
		}
	}
	db := map[string]string{"app": "db"}
	tr.SetPod(name("before"), db, "n1")
	tr.SetNamespace("shop", map[string]string{"team": "shop"})
	if !tr.SetClusterPolicy("deny", "uid", 1, shop, labels.SelectorFromSet(db), epoch) || tr.SetClusterPolicy("deny", "uid", 1, shop, shop, epoch) {
		t.Error("a version is new once")
	}
	state("a pod that was there", "0 of 1")
	if changed := tr.SetPod(name("after"), db, "n2"); !slices.Equal(changed, []types.NamespacedName{cluster}) {
		t.Errorf("a new pod changes %v", changed)
	}
	tr.SetPod(name("web"), map[string]string{"app": "web"}, "n3")
	tr.SetPod(types.NamespacedName{Namespace: "other", Name: "db"}, db, "n4")
	state("pods that it does not select", "0 of 2")
	tr.Report("n1", cluster, Report{UID: "uid", Generation: 1}, false)
	tr.Report("n1", key, Report{UID: "uid", Generation: 1}, false) // a PolicyEndpoint
	state("a report", "1 of 2")
	if changed := tr.SetNamespace("other", map[string]string{"team": "shop"}); !slices.Equal(changed, []types.NamespacedName{cluster}) {
		t.Errorf("a namespace's label changes %v", changed)
	}
	state("another namespace", "1 of 3")
	tr.SetNamespace("shop", nil)
	state("a namespace without the label", "0 of 1")
	if concerned := tr.DeleteNode("n4"); !slices.Equal(concerned, []types.NamespacedName{cluster}) {
		t.Errorf("a node that is gone concerns %v", concerned)
	}
	tr.DeletePolicy(cluster)
	if len(tr.Policies()) > 0 {
		t.Errorf("left are %v", tr.Policies())
	}
}
