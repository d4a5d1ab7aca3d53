package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

func end(namespace, kind, name string) observerapi.End {
	return observerapi.End{Namespace: namespace, Workload: &agentapi.Workload{Kind: kind, Name: name}}
}

// answer of an observer.
func answer(t *testing.T, of any) io.ReadCloser {
	t.Helper()
	text, err := json.Marshal(of)
	if err != nil {
		t.Fatal(err)
	}
	return io.NopCloser(bytes.NewReader(text))
}

func TestFlowsAreAddedToTheEdges(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 0, 0, 0, time.UTC)
	frontend, backend, database := end("shop", "Deployment", "frontend"), end("shop", "Deployment", "backend"), end("shop", "Deployment", "database")
	flow := func(from, to observerapi.End, port uint16, v observerapi.Verdict, n uint64) observerapi.Flow {
		return observerapi.Flow{Source: from, Destination: to, Protocol: "TCP", Port: port, Verdict: v, Connections: n, First: now.Add(-time.Minute), Last: now}
	}
	forgotten := flow(frontend, backend, 8000, observerapi.Allowed, 1000)
	forgotten.Reply = true
	list := &observerapi.FlowList{
		Coverage: observerapi.Coverage{Since: now.Add(-time.Hour), Until: now, Losses: []observerapi.Loss{{Node: "n1", Reason: "rate", Records: 3}}},
		Flows: []observerapi.Flow{
			flow(frontend, backend, 8000, observerapi.Allowed, 60), flow(frontend, backend, 8000, observerapi.Allowed, 60), forgotten,
			flow(frontend, database, 5432, observerapi.Denied, 7),
			flow(backend, end("shop", "Deployment", "gone"), 80, observerapi.Allowed, 5),
			flow(observerapi.End{Address: netip.MustParseAddr("203.0.113.200")}, frontend, 8080, observerapi.Allowed, 2),
			flow(backend, database, 6000, observerapi.WouldBeDeny, 4),
		},
	}
	s := serve(t, readShop(t))
	s.options.Observer = func(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
		if path != observerapi.PathEdges || query.Get("since") != "6h0m0s" {
			return nil, fmt.Errorf("asked for %s %s", path, query)
		}
		return answer(t, list), nil
	}
	g := get[Graph](t, s, "/api/graph?since=6h")
	if g.Traffic == nil || g.Traffic.Error != "" || g.Traffic.Unplaced != 5 || len(g.Traffic.Losses) != 1 || len(g.Seen.Rate) != len(g.Edges.Port) {
		t.Fatalf("traffic: %+v", g.Traffic)
	}
	if without := get[Graph](t, serve(t, readShop(t)), "/api/graph"); g.Denied <= without.Denied || len(g.Edges.Source) >= len(without.Edges.Source) {
		t.Errorf("%d edges and %d denied pairs that are not listed; without traffic %d and %d", len(g.Edges.Source), g.Denied, len(without.Edges.Source), without.Denied)
	}
	type port struct {
		from, to string
		number   int
	}
	found := map[port]int{}
	for i := range g.Edges.Source {
		for k := g.Edges.First[i]; k < g.Edges.First[i+1]; k++ {
			found[port{g.Nodes.ID[g.Edges.Source[i]], g.Nodes.ID[g.Edges.Destination[i]], g.Edges.Port[k]}] = k
		}
	}
	for p, want := range map[port]struct {
		total, denied uint64
		code          Code
	}{
		{"shop/frontend", "shop/backend", 8000}:             {120, 0, CodeAllowed},
		{"shop/frontend", "shop/database", 5432}:            {7, 7, CodeDenied},
		{"outside:203.0.113.128/25", "shop/frontend", 8080}: {2, 0, CodeAllowed},
		{"shop/backend", "shop/database", 6000}:             {4, 0, CodeWouldDeny},
		{"monitoring/prometheus", "shop/backend", 9090}:     {0, 0, CodeAllowed},
	} {
		k, ok := found[p]
		if !ok || g.Seen.Total[k] != want.total || g.Seen.Denied[k] != want.denied || g.Edges.Verdict[k] != want.code || (g.Seen.Last[k] > 0) != (want.total > 0) ||
			want.total > 0 && (g.Seen.First[k] != now.Add(-time.Minute).Unix() || g.Seen.Last[k] != now.Unix()) {
			t.Errorf("%v: %t, %d connections, %d denied, code %d", p, ok, g.Seen.Total[k], g.Seen.Denied[k], g.Edges.Verdict[k])
		}
	}
	if k := found[port{"shop/frontend", "shop/backend", 8000}]; g.Seen.Rate[k] != 2 {
		t.Errorf("%v connections per minute", g.Seen.Rate[k])
	}
}

func TestTheMapStaysWithoutTheObserver(t *testing.T) {
	s := serve(t, readShop(t))
	s.options.Observer = func(context.Context, string, url.Values) (io.ReadCloser, error) { return nil, errors.New("it is away") }
	g := get[Graph](t, s, "/api/graph")
	if g.Traffic == nil || g.Traffic.Error != "it is away" || g.Seen != nil || len(g.Edges.Source) == 0 {
		t.Errorf("traffic %+v, %d edges", g.Traffic, len(g.Edges.Source))
	}
	if w := s.request("GET", "/api/graph?since=yesterday", ""); w.Code != 400 || !strings.Contains(w.Body.String(), "not a duration") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
