package agent

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestStartupTaint(t *testing.T) {
	other := corev1.Taint{Key: "node.kubernetes.io/not-ready", Effect: corev1.TaintEffectNoSchedule}
	ours := corev1.Taint{Key: StartupTaint, Effect: corev1.TaintEffectNoExecute}
	client := fake.NewClientset(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1", ResourceVersion: "7"},
		Spec:       corev1.NodeSpec{Taints: []corev1.Taint{ours, other}},
	})
	taint := NodeTaint{Nodes: client.CoreV1().Nodes(), NodeName: "node-1"}
	for _, want := range []bool{true, false} {
		removed, err := taint.remove(t.Context())
		if err != nil || removed != want {
			t.Errorf("removed %v, %v; want %v", removed, err, want)
		}
		node, err := taint.Nodes.Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil || !slices.Equal(node.Spec.Taints, []corev1.Taint{other}) {
			t.Errorf("left %v, %v", node.Spec.Taints, err)
		}
	}
	taint.NodeName = "node-2"
	if _, err := taint.remove(t.Context()); err == nil {
		t.Error("a node that is not there has lost its taint")
	}
}
