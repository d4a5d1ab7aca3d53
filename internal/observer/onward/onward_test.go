package onward_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
	"github.com/kidoban/kidoban/internal/observer/onward"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/sink"
)

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// receiver takes OTLP logs.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	data    []*logspb.LogsData
	headers []http.Header
	// answer of the next requests; without one they are taken.
	answers []func(http.ResponseWriter)
}

func newReceiver(t *testing.T, answers ...func(http.ResponseWriter)) *receiver {
	t.Helper()
	r := &receiver{answers: answers}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if len(r.answers) > 0 {
			answer := r.answers[0]
			r.answers = r.answers[1:]
			answer(w)
			return
		}
		body, err := io.ReadAll(req.Body)
		var data logspb.LogsData
		if err != nil || req.URL.Path != "/base/v1/logs" || proto.Unmarshal(body, &data) != nil {
			t.Errorf("%s: %v", req.URL, err)
		}
		r.data, r.headers = append(r.data, &data), append(r.headers, req.Header)
	}))
	t.Cleanup(r.Close)
	return r
}

// send sends flows to sinks until all that can be is delivered, and returns the metrics.
func send(t *testing.T, flows []observerapi.Flow, sinks ...sink.Sink) *prometheus.Registry {
	t.Helper()
	registry := prometheus.NewRegistry()
	o := onward.New(onward.Options{Sinks: sinks, Log: logr.Discard(), Registry: registry})
	for i := range flows {
		o.Send(&flows[i])
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		o.Run(ctx)
		close(done)
	}()
	for deadline := time.Now().Add(30 * time.Second); !delivered(t, registry, len(flows)*len(sinks)); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not delivered within 30 s")
		}
	}
	cancel()
	<-done
	return registry
}

// delivered reports whether so many lines were taken or lost.
func delivered(t *testing.T, registry *prometheus.Registry, want int) bool {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var n float64
	for _, f := range families {
		if name := f.GetName(); name == "kidoban_observer_onward_lines_total" || name == "kidoban_observer_onward_dropped_lines_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return int(n) == want
}

func otlp(t *testing.T, r *receiver) sink.Sink {
	t.Helper()
	s, err := onward.OTLP(onward.OTLPOptions{Endpoint: r.URL + "/base", Header: http.Header{"Authorization": {"Bearer x"}}, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func denied() observerapi.Flow {
	f := hubbletest.FlowAt(5432, at)
	f.Ingress, f.Verdict, f.Connections = &hubbletest.ByDefault, observerapi.Denied, 3
	return f
}

func TestFlowsAsOTLPLogs(t *testing.T) {
	r := newReceiver(t)
	send(t, []observerapi.Flow{hubbletest.FlowAt(443, at), denied()}, otlp(t, r))
	resource := r.data[0].GetResourceLogs()[0]
	if d := cmp.Diff(map[string]any{"service.name": "kidoban-observer", "service.version": "v1"}, plain(resource.GetResource().GetAttributes())); d != "" {
		t.Errorf("resource (-want +got)\n%s", d)
	}
	if h := r.headers[0]; h.Get("Content-Type") != "application/x-protobuf" || h.Get("Authorization") != "Bearer x" {
		t.Errorf("headers %v", h)
	}
	records := resource.GetScopeLogs()[0].GetLogRecords()
	if len(records) != 2 || records[0].GetSeverityText() != "INFO" || records[1].GetSeverityText() != "WARN" {
		t.Fatalf("got %v", records)
	}
	got := records[1]
	if got.GetTimeUnixNano() != uint64(at.UnixNano()) || got.GetObservedTimeUnixNano() == 0 || got.GetEventName() != "kidoban.flow" {
		t.Errorf("got %v", got)
	}
	want := map[string]any{
		"kidoban.verdict": "Denied", "kidoban.sides": "Complete", "kidoban.connections": int64(3), "kidoban.service": "shop/database",
		"network.transport": "tcp", "destination.port": int64(5432), "source.address": "10.0.0.1", "destination.address": "10.0.1.2",
		"kidoban.source.namespace": "shop", "kidoban.source.pod": "web-1", "kidoban.source.node": "node-1",
		"kidoban.source.workload.kind": "Deployment", "kidoban.source.workload.name": "web",
		"kidoban.destination.namespace": "shop", "kidoban.destination.pod": "db-0", "kidoban.destination.node": "node-2",
		"kidoban.destination.workload.kind": "StatefulSet", "kidoban.destination.workload.name": "db",
		"kidoban.egress.verdict": "Allowed", "kidoban.egress.reason": "policy", "kidoban.egress.tier": "Admin",
		"kidoban.egress.policy":   "ClusterNetworkPolicy base",
		"kidoban.ingress.verdict": "Denied", "kidoban.ingress.reason": "default-deny", "kidoban.ingress.tier": "NetworkPolicy",
	}
	if d := cmp.Diff(want, plain(got.GetAttributes())); d != "" {
		t.Errorf("attributes (-want +got)\n%s", d)
	}
	body := plain(got.GetBody().GetKvlistValue().GetValues())
	if d := cmp.Diff(int64(5432), body["port"]); d != "" {
		t.Errorf("body: %v", body)
	}
	policy := body["egress"].(map[string]any)["policy"].(map[string]any)
	if d := cmp.Diff([]any{int64(0), int64(2)}, policy["rules"]); d != "" {
		t.Errorf("body: %v", body)
	}
}

// plain are values of OTLP as Go has them.
func plain(list []*commonpb.KeyValue) map[string]any {
	out := map[string]any{}
	for _, kv := range list {
		out[kv.GetKey()] = plainValue(kv.GetValue())
	}
	return out
}

func plainValue(v *commonpb.AnyValue) any {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_IntValue:
		return v.IntValue
	case *commonpb.AnyValue_BoolValue:
		return v.BoolValue
	case *commonpb.AnyValue_ArrayValue:
		var out []any
		for _, e := range v.ArrayValue.GetValues() {
			out = append(out, plainValue(e))
		}
		return out
	case *commonpb.AnyValue_KvlistValue:
		return plain(v.KvlistValue.GetValues())
	}
	return nil
}

func TestAReceiverThatIsBusyGetsFlowsLater(t *testing.T) {
	r := newReceiver(t, func(w http.ResponseWriter) { w.WriteHeader(http.StatusServiceUnavailable) })
	send(t, []observerapi.Flow{denied()}, otlp(t, r))
	if len(r.data) != 1 {
		t.Errorf("received %d requests", len(r.data))
	}
}

func TestLossesAreCounted(t *testing.T) {
	partial := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType),
		protowire.AppendVarint(protowire.AppendTag(protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), "full"), 1, protowire.VarintType), 1))
	r := newReceiver(t, func(w http.ResponseWriter) { _, _ = w.Write(partial) })
	registry := send(t, []observerapi.Flow{denied(), denied()}, otlp(t, r))
	want := `# HELP kidoban_observer_onward_dropped_lines_total Lines that were lost, because a sink was behind (queue-full) or would not have them (refused).
# TYPE kidoban_observer_onward_dropped_lines_total counter
kidoban_observer_onward_dropped_lines_total{reason="queue-full",sink="otlp"} 0
kidoban_observer_onward_dropped_lines_total{reason="refused",sink="otlp"} 1
`
	if err := testutil.GatherAndCompare(registry, bytes.NewReader([]byte(want)), "kidoban_observer_onward_dropped_lines_total"); err != nil {
		t.Error(err)
	}
}

func TestFlowsAsLinesOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flows.jsonl")
	send(t, []observerapi.Flow{denied(), hubbletest.FlowAt(443, at)}, sink.File(sink.FileOptions{Path: path}))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var ports []uint16
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var flow observerapi.Flow
		if err := json.Unmarshal(lines.Bytes(), &flow); err != nil {
			t.Fatal(err)
		}
		ports = append(ports, flow.Port)
	}
	if d := cmp.Diff([]uint16{5432, 443}, ports); d != "" {
		t.Error(d)
	}
}

func TestInvalidEndpoints(t *testing.T) {
	for _, endpoint := range []string{"", "collector:4318", "grpc://collector:4317", "http://", "://x"} {
		if _, err := onward.OTLP(onward.OTLPOptions{Endpoint: endpoint}); err == nil {
			t.Errorf("%q is valid", endpoint)
		}
	}
}
