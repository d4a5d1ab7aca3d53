package workloadmetrics

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

func flowTo(name string, n uint64) *observerapi.Flow {
	return &observerapi.Flow{
		Source:      observerapi.End{Namespace: "shop", Pod: "web-1", Workload: &agentapi.Workload{Kind: "Deployment", Name: "web"}},
		Destination: observerapi.End{Namespace: "shop", Pod: name}, Verdict: observerapi.Allowed, Connections: n,
	}
}

func TestSeriesAreBounded(t *testing.T) {
	m, now := New(2), time.Now()
	m.Add(flowTo("a", 1), now)
	m.Add(flowTo("a", 2), now)
	m.Add(flowTo("a", 0), now) // continues a connection
	outside := flowTo("", 4)
	outside.Destination, outside.Verdict = observerapi.End{}, observerapi.Denied
	m.Add(outside, now)
	m.Add(flowTo("b", 8), now)
	want := `# HELP kidoban_observer_workload_connections_total Connections between two workloads, by verdict, while there is room for the pair.
# TYPE kidoban_observer_workload_connections_total counter
kidoban_observer_workload_connections_total{destination_namespace="shop",destination_workload="Pod/a",source_namespace="shop",source_workload="Deployment/web",verdict="Allowed"} 3
kidoban_observer_workload_connections_total{destination_namespace="",destination_workload="outside",source_namespace="shop",source_workload="Deployment/web",verdict="Denied"} 4
# HELP kidoban_observer_workload_connections_unlisted_total Connections of pairs of workloads that there is no room for.
# TYPE kidoban_observer_workload_connections_unlisted_total counter
kidoban_observer_workload_connections_unlisted_total 8
`
	if err := testutil.CollectAndCompare(m, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	// What has been idle makes room.
	m.Add(outside, now.Add(idle))
	m.Add(flowTo("b", 16), now.Add(idle+time.Second))
	want = strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(want, "Pod/a", "Pod/b"), "} 3\n", "} 16\n"), "} 4\n", "} 8\n")
	if err := testutil.CollectAndCompare(m, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
}
