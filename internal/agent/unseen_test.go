package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/node"
)

// The interfaces of pods that policies do not apply to are counted by kind, as long as they and their pods are there.
func TestUnseenInterfacesAreCounted(t *testing.T) {
	kernel := newFakeKernel()
	kernel.unseen = map[node.NetNS][]node.Link{0: {{Name: "net1", Kind: "macvlan"}}, 1: {{Name: "net1", Kind: "macvlan"}}}
	s := newState(node.Options{SharedNamespace: "kidoban-system"})
	f := &unseenFollower{kernel: kernel, state: s, metrics: newMetrics(prometheus.NewRegistry(), kernel), log: testr.New(t)}
	s.update(t.Context(), func(now time.Time, n *node.Node) {
		n.SetPod(now, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}}})
		n.SetInterfaces(now, node.Interfaces{
			Routed: map[uint32][]netip.Addr{5: {netip.MustParseAddr("10.0.0.1")}}, Namespaces: map[uint32]node.NetNS{5: 0, 6: 1},
		})
	})
	f.refresh()
	if got := testutil.ToFloat64(f.metrics.unseen.WithLabelValues("macvlan")); got != 1 {
		t.Errorf("%v interfaces are counted, want 1", got)
	}
	kernel.unseen = nil
	f.refresh()
	if got := testutil.CollectAndCount(f.metrics.unseen); got != 0 {
		t.Errorf("%d series are left", got)
	}
}
