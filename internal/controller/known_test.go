package controller

import (
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/stream"
)

// Only a pod of the agents that has not ended can have a stream.
func TestWhichPodsAreAgents(t *testing.T) {
	c := &Controller{shared: "kidoban-system", known: newKnown()}
	c.agents = newAgents(c, logr.Discard())
	agent := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "kidoban-system", Name: "agent", UID: "uid"}}
	agent.Spec.NodeName, agent.Spec.ServiceAccountName = "n1", stream.AgentServiceAccount
	change := func(change func(*corev1.Pod)) *corev1.Pod {
		p := agent.DeepCopy()
		change(p)
		return p
	}
	for name, tc := range map[string]struct {
		now  *corev1.Pod
		want bool
	}{
		"running":           {change(func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }), true},
		"evicted":           {change(func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }), false},
		"another namespace": {change(func(p *corev1.Pod) { p.Namespace = "default" }), false},
		"another account":   {change(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "default" }), false},
		"deleted":           {nil, false},
	} {
		c.followAgents(nil, &agent)
		if !c.known.IsAgent("n1", "uid") {
			t.Fatalf("%s: the pod is not known", name)
		}
		now := &tc.now
		if tc.now == nil {
			now = nil
		}
		c.followAgents(&agent, now)
		if got := c.known.IsAgent("n1", "uid"); got != tc.want {
			t.Errorf("%s: %t, want %t", name, got, tc.want)
		}
	}
}

// A node that announces a pod of another node before the pod is known does not take the place of the other's announcement.
func TestTwoNodesAnnounceAPodThatIsNotKnown(t *testing.T) {
	c := &Controller{}
	a := newAgents(c, logr.Discard())
	for _, node := range []string{"n1", "n2"} {
		n := announcement{at: time.Now()}
		n.Node, n.UID = node, "uid"
		a.unknown[onNode{node, "uid"}] = n
	}
	a.sawPod("n3", "uid")
	if len(a.unknown) != 2 {
		t.Errorf("left are %v", a.unknown)
	}
	a.sawPod("n1", "uid")
	if _, ok := a.unknown[onNode{"n2", "uid"}]; !ok || len(a.unknown) != 1 {
		t.Errorf("left are %v", a.unknown)
	}
}
