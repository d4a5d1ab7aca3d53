package ui

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// serveRecording serves the shop, with an observer that recorded two pairs of workloads.
func serveRecording(t *testing.T) *Server {
	s := serve(t, readShop(t))
	pod := func(name, address string) observerapi.End {
		e := end("shop", "Deployment", name)
		e.Pod, e.Address = name+"-0", netip.MustParseAddr(address)
		e.Labels, e.NamespaceLabels = map[string]string{"app.kubernetes.io/name": name}, map[string]string{"kubernetes.io/metadata.name": "shop"}
		return e
	}
	frontend, backend, database := pod("frontend", "10.50.1.1"), pod("backend", "10.50.1.2"), pod("database", "10.50.1.3")
	s.options.Observer = func(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
		since, err := time.Parse(time.RFC3339, query.Get("since"))
		if err != nil || path != observerapi.PathFlows {
			t.Errorf("asked for %s?%s: %v", path, query.Encode(), err)
		}
		flow := func(from, to observerapi.End, port uint16) observerapi.Flow {
			return observerapi.Flow{Source: from, Destination: to, Protocol: "TCP", Port: port, Verdict: observerapi.Allowed, Connections: 10, First: since, Last: since.Add(time.Minute)}
		}
		return answer(t, &observerapi.FlowList{Flows: []observerapi.Flow{flow(frontend, backend, 8000), flow(backend, database, 5432)}}), nil
	}
	return s
}

func TestManifestsAreReplayed(t *testing.T) {
	s := serveRecording(t)
	w := s.request("POST", "/api/replay?since=24h", `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: database, namespace: shop}
spec: {podSelector: {matchLabels: {app.kubernetes.io/name: database}}, ingress: [{ports: [{port: 9090}]}]}`, "Origin", "http://"+s.listener.Addr().String())
	var got Replayed
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusOK {
		t.Fatal(w.Code, w.Body, err)
	}
	at := slices.IndexFunc(got.Edges, func(e ReplayedEdge) bool { return e.From == "shop/backend" && e.To == "shop/database" })
	if at < 0 || !got.Complete || !got.WouldDeny() {
		t.Fatalf("%+v", got)
	}
	e := got.Edges[at]
	if e.Denied == 0 || e.Allowed != 0 || len(e.Changes) == 0 || got.Changes[e.Changes[0]].To.Name != "database" {
		t.Errorf("%+v", e)
	}
	if slices.ContainsFunc(got.Edges, func(e ReplayedEdge) bool { return e.To != "shop/database" }) {
		t.Errorf("%+v", got.Edges)
	}
}

func TestPoliciesAreRecommended(t *testing.T) {
	s := serveRecording(t)
	got := get[Recommended](t, s, "/api/recommend?namespace=shop&audit=true")
	if !got.Complete || len(got.Policies) == 0 || got.Proof.Rules == 0 || !strings.Contains(got.YAML, "kidoban.dev/enforcement: audit") {
		t.Errorf("%+v\n%s", got.Proof, got.YAML)
	}
	if w := s.request("POST", "/api/whatif", got.YAML, "Origin", "http://"+s.listener.Addr().String()); w.Code != http.StatusOK {
		t.Errorf("what the page does with it: %d %s", w.Code, w.Body)
	}
	for path, want := range map[string]int{"/api/recommend": http.StatusBadRequest, "/api/recommend?namespace=shop&since=now": http.StatusBadRequest} {
		if w := s.request("GET", path, ""); w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	s.options.Observer = nil
	if w := s.request("GET", "/api/recommend?namespace=shop", ""); w.Code != http.StatusNotFound {
		t.Errorf("without an observer: %d %s", w.Code, w.Body)
	}
}
