package flowpush

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/flow"
)

func observerPod(name string, isReady, sharesStore bool) *corev1.Pod {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{}}}
	if isReady {
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	if sharesStore {
		pod.Labels[flow.StoreLabel] = flow.StoreShared
	}
	return pod
}

func TestEachReplicaWithItsOwnStoreIsChosen(t *testing.T) {
	for _, pods := range [][]*corev1.Pod{
		nil,
		{observerPod("a", true, false), observerPod("b", false, false)},
		{observerPod("a", true, true), observerPod("b", true, false)}, // during a change of the store
	} {
		if got := Choose("node")(pods); len(got) != len(pods) {
			t.Errorf("%d of %d pods", len(got), len(pods))
		}
	}
}

func TestNodesSpreadOverReplicasThatShareAStore(t *testing.T) {
	pods := []*corev1.Pod{observerPod("a", true, true), observerPod("b", true, true), observerPod("c", true, true), observerPod("d", false, true)}
	const nodes = 300
	before, nodesOf := map[string]string{}, map[string]int{}
	for i := range nodes {
		node := fmt.Sprint("node-", i)
		chosen := Choose(node)(pods)
		if len(chosen) != 1 {
			t.Fatalf("%d pods", len(chosen))
		}
		before[node] = chosen[0].Name
		nodesOf[chosen[0].Name]++
	}
	for _, name := range []string{"a", "b", "c"} {
		if n := nodesOf[name]; n < nodes/3/2 || n > nodes/3*2 {
			t.Errorf("%d of %d nodes push to %s", n, nodes, name)
		}
	}
	if n := nodesOf["d"]; n > 0 {
		t.Errorf("%d nodes push to a pod that is not ready", n)
	}
	for node, name := range before {
		if now := Choose(node)(pods[:2])[0].Name; name != "c" && now != name {
			t.Errorf("%s changed from %s to %s when c went", node, name, now)
		}
	}
}
