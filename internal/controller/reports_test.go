package controller

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
)

// The agent of a node reports a policy when a pod that it selects has an address. A pod that waits for a volume has none, maybe for days: until
// then its node must not count, or the policy would never be in force.
func TestAPodCountsWhenItHasAnAddress(t *testing.T) {
	c := &Controller{reports: newReports()}
	policy := types.NamespacedName{Namespace: "shop", Name: "deny"}
	c.reports.tracker.SetPolicy(policy, "uid", 1, labels.Everything(), time.Now())
	waiting := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}}
	waiting.Spec.NodeName, waiting.Status.Phase = "n1", corev1.PodPending
	running := waiting.DeepCopy()
	running.Status.Phase, running.Status.PodIPs = corev1.PodRunning, []corev1.PodIP{{IP: "10.0.0.1"}}
	onHost := running.DeepCopy()
	onHost.Spec.HostNetwork = true
	ended := running.DeepCopy()
	ended.Status.Phase = corev1.PodSucceeded

	var old **corev1.Pod
	for _, step := range []struct {
		name  string
		now   *corev1.Pod
		nodes int
	}{{"waiting", waiting, 0}, {"running", running, 1}, {"ended", ended, 0}, {"on the host's network", onHost, 0}} {
		c.trackPod(old, &step.now)
		old = &step.now
		s, ok := c.reports.tracker.State(policy, "uid", 1, func(string) bool { return true })
		if !ok || s.Total != step.nodes {
			t.Errorf("%s: %d nodes, %t; want %d", step.name, s.Total, ok, step.nodes)
		}
	}
}
