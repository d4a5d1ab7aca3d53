package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
)

type node struct{}

func (node) Pods() []agentapi.Pod {
	rules := []agentapi.Rule{{Action: "Allow", Peers: []agentapi.Peer{{Group: "shop/g"}}}, {Action: "Allow", Peers: []agentapi.Peer{{DomainNames: []string{"api.example.com"}}}}}
	return []agentapi.Pod{{Namespace: "shop", Name: "web", Ingress: agentapi.PodPolicy{Rules: rules[:1]}, Egress: agentapi.PodPolicy{Rules: rules}}}
}
func (node) LearnedNames() (agentapi.NameList, error) {
	return agentapi.NameList{Names: []agentapi.LearnedName{{Name: "api.example.com"}}}, nil
}
func (node) Policies() []agentapi.Policy { return []agentapi.Policy{{PolicyEndpoint: "allow"}} }

// ring holds events 10 and on, as if those before were overwritten.
type ring struct {
	mu     sync.Mutex
	events []agentapi.Event
	news   chan struct{}
}

const firstNumber = 10

func (r *ring) add(e ...agentapi.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e...)
	if r.news != nil {
		close(r.news)
	}
	r.news = make(chan struct{})
}

func (r *ring) From(number uint64) ([]agentapi.Event, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	number = min(max(number, firstNumber), firstNumber+uint64(len(r.events)))
	return r.events[number-firstNumber:], number
}

func (r *ring) Wait(ctx context.Context, number uint64) ([]agentapi.Event, uint64) {
	for {
		events, first := r.From(number)
		if len(events) > 0 {
			return events, first
		}
		r.mu.Lock()
		news := r.news
		r.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, first
		case <-news:
		}
	}
}

var begin = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)

func event(minute int) agentapi.Event {
	return agentapi.Event{Time: begin.Add(time.Duration(minute) * time.Minute), Node: fmt.Sprint(minute)}
}

// metrics of an agent that put two entries right, of which one is one too many.
func metrics() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	drift := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kidoban_agent_drift_entries_total"}, []string{"map", "difference"})
	drift.WithLabelValues("pods", "missing").Inc()
	drift.WithLabelValues("rules", "extra").Inc()
	entries := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kidoban_agent_map_entries"}, []string{"map"})
	entries.WithLabelValues("pods").Set(12)
	most := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "kidoban_agent_map_max_entries"}, []string{"map"})
	most.WithLabelValues("pods").Set(4096)
	streams := prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_agent_observer_streams"})
	streams.Set(2)
	lost := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kidoban_agent_flow_records_lost_total"}, []string{"reason"})
	lost.WithLabelValues("queue").Add(3)
	lost.WithLabelValues("map").Add(4)
	r.MustRegister(drift, entries, most, streams, lost, prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_agent_build_info", ConstLabels: prometheus.Labels{"version": "v1"}}))
	return r
}

func serveNode(t *testing.T, r *ring) (*httptest.Server, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	s := httptest.NewServer(Handler(ctx, "node-1", node{}, r, metrics()))
	t.Cleanup(func() {
		cancel()
		s.Close()
	})
	return s, cancel
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	res, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestLists(t *testing.T) {
	s, _ := serveNode(t, &ring{})
	var pods agentapi.PodList
	if status, body := get(t, s.URL+agentapi.PathPods); status != http.StatusOK || json.Unmarshal([]byte(body), &pods) != nil || pods.Node != "node-1" || pods.Pods[0].Name != "web" {
		t.Errorf("%d %s", status, body)
	}
	var policies agentapi.PolicyList
	if status, body := get(t, s.URL+agentapi.PathPolicies); status != http.StatusOK || json.Unmarshal([]byte(body), &policies) != nil || policies.Policies[0].PolicyEndpoint != "allow" {
		t.Errorf("%d %s", status, body)
	}
	var node agentapi.Node
	if status, body := get(t, s.URL+agentapi.PathNode); status != http.StatusOK || json.Unmarshal([]byte(body), &node) != nil || node.Node != "node-1" || node.Version != "v1" || node.Drift != 2 ||
		!slices.Equal(node.Maps, []agentapi.MapUse{{Map: "pods", Entries: 12, Max: 4096}}) || node.Observer == nil || *node.Observer != (agentapi.ObserverUse{Streams: 2, Lost: 7}) {
		t.Errorf("%d %s", status, body)
	}
	if res, err := http.Post(s.URL+agentapi.PathPods, "application/json", strings.NewReader("{}")); err != nil || res.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("%v, %v", res, err)
	}
}

func TestEventsSince(t *testing.T) {
	r := &ring{}
	r.add(event(0), event(1), event(2))
	s, _ := serveNode(t, r)
	for since, want := range map[string]string{"": "0 1 2", "2026-11-22T10:01:00Z": "1 2", "1m": ""} {
		status, body := get(t, s.URL+agentapi.PathEvents+"?since="+since)
		var nodes []string
		for line := range strings.Lines(body) {
			var e agentapi.StreamedEvent
			if err := json.Unmarshal([]byte(line), &e); err != nil || e.Missed != 0 {
				t.Fatalf("%q: %v", line, err)
			}
			nodes = append(nodes, e.Node)
		}
		if status != http.StatusOK || strings.Join(nodes, " ") != want {
			t.Errorf("since %q: %d %v, want %s", since, status, nodes, want)
		}
	}
	for _, query := range []string{"since=yesterday", "follow=perhaps"} {
		if status, _ := get(t, s.URL+agentapi.PathEvents+"?"+query); status != http.StatusBadRequest {
			t.Errorf("%s: %d", query, status)
		}
	}
}

func TestFollowedEventsComeAsTheyHappenUntilTheEnd(t *testing.T) {
	r := &ring{}
	r.add(event(0))
	s, cancel := serveNode(t, r)
	res, err := http.Get(s.URL + agentapi.PathEvents + "?follow")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for minute := range 3 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		if want := fmt.Sprintf(`"node":"%d"`, minute); !strings.Contains(lines.Text(), want) {
			t.Errorf("%s, want %s", lines.Text(), want)
		}
		r.add(event(minute + 1))
	}
	cancel()
	for lines.Scan() { // what was on its way
	}
	if err := lines.Err(); err != nil {
		t.Error(err)
	}
}

// A reader that is too slow for the ring learns how much it missed.
func TestMissedEventsAreCounted(t *testing.T) {
	w := httptest.NewRecorder()
	stream(context.Background(), w, &slow{}, time.Time{}, true)
	if body := w.Body.String(); strings.Count(body, "\n") != 3 || !strings.Contains(strings.Split(body, "\n")[1], `"missed":5`) || strings.Count(body, "missed") != 1 {
		t.Errorf("%s", body)
	}
}

type slow struct{ done bool }

func (*slow) From(uint64) ([]agentapi.Event, uint64) { return []agentapi.Event{event(0)}, 3 }

func (s *slow) Wait(_ context.Context, number uint64) ([]agentapi.Event, uint64) {
	if s.done {
		return nil, number
	}
	s.done = true
	return []agentapi.Event{event(1), event(2)}, number + 5
}

// A report has the rules with domain names only: the others are large, and status does not need them.
func TestReport(t *testing.T) {
	now := time.Now()
	r := &ring{events: []agentapi.Event{
		{Time: now.Add(-time.Hour), Verdict: agentapi.VerdictDeny, Count: 100}, {Time: now, Verdict: agentapi.VerdictAccept, Count: 10},
		{Time: now, Verdict: agentapi.VerdictDeny}, {Time: now, Verdict: agentapi.VerdictDeny, Count: 5},
	}}
	got, err := Report("node-1", node{}, r, metrics())
	if err != nil {
		t.Fatal(err)
	}
	if got.Denied != 6 || got.Node.Version != "v1" || len(got.Pods) != 1 || len(got.Policies) != 1 || got.Pods[0].Ingress.Rules != nil {
		t.Errorf("%+v", got)
	}
	if rules := got.Pods[0].Egress.Rules; len(rules) != 1 || !rules[0].HasDomainNames() {
		t.Errorf("%+v", rules)
	}
	if got.Names == nil || got.Names.Node != "node-1" {
		t.Errorf("%+v", got.Names)
	}
}
