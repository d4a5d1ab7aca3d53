package agent

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"k8s.io/apimachinery/pkg/types"
)

// An alert asks for policies that wait.
func TestWhatANamespaceWaitedForIsNotCountedWhenItIsForgotten(t *testing.T) {
	s := tell(t)
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("none"))
	a := &Agent{state: s.state, opts: Options{SharedNamespace: shared}, metrics: newMetrics(prometheus.NewRegistry(), nil), kick: make(chan struct{}, 1)}
	a.metrics.observe(a.state)
	s.deletePod(types.NamespacedName{Namespace: "shop", Name: "web"})
	s.namespaces["shop"].idle = time.Now().Add(-2 * idleNamespace)
	cut := func() {}
	a.watches = map[string]context.CancelFunc{"shop": cut, shared: cut}
	a.followNamespaces(t.Context())
	if n := testutil.ToFloat64(a.metrics.policies.WithLabelValues("waiting")); len(s.policies) > 0 || n != 0 {
		t.Errorf("waiting are %v, counted %v", s.waiting, n)
	}
}
