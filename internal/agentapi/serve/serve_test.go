package serve

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	authenticationclient "k8s.io/client-go/kubernetes/typed/authentication/v1"
	authorizationclient "k8s.io/client-go/kubernetes/typed/authorization/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
)

type node struct{}

func (node) Pods() []agentapi.Pod        { return []agentapi.Pod{{Namespace: "shop", Name: "web"}} }
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
	r.MustRegister(drift, entries, most, prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_agent_build_info", ConstLabels: prometheus.Labels{"version": "v1"}}))
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
		!slices.Equal(node.Maps, []agentapi.MapUse{{Map: "pods", Entries: 12, Max: 4096}}) {
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

// A reader that is too slow for the ring is told how much it missed.
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

// apiServer knows two tokens: alice's for agents and bob's for the API server; and that alice may get /v1/pods.
type apiServer struct {
	authenticationclient.TokenReviewInterface
	away bool
}

func (a apiServer) Create(_ context.Context, review *authenticationv1.TokenReview, _ metav1.CreateOptions) (*authenticationv1.TokenReview, error) {
	if a.away {
		return nil, errors.New("away")
	}
	switch review.Spec.Token {
	case "alice":
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, Audiences: review.Spec.Audiences, User: authenticationv1.UserInfo{Username: "alice", Groups: []string{"sre"}}}
	case "bob":
		review.Status = authenticationv1.TokenReviewStatus{Authenticated: true, User: authenticationv1.UserInfo{Username: "bob"}}
	}
	return review, nil
}

type access struct {
	authorizationclient.SubjectAccessReviewInterface
}

func (access) Create(_ context.Context, review *authorizationv1.SubjectAccessReview, _ metav1.CreateOptions) (*authorizationv1.SubjectAccessReview, error) {
	s := review.Spec
	review.Status.Allowed = s.User == "alice" && s.Groups[0] == "sre" && s.NonResourceAttributes.Verb == "get" && s.NonResourceAttributes.Path == agentapi.PathPods
	return review, nil
}

func TestGuard(t *testing.T) {
	for _, tc := range []struct {
		name, authorization, path string
		away                      bool
		want                      int
	}{
		{"may", "Bearer alice", agentapi.PathPods, false, http.StatusOK},
		{"may, in lower case", "bearer alice", agentapi.PathPods, false, http.StatusOK},
		{"may not get that", "Bearer alice", agentapi.PathEvents, false, http.StatusForbidden},
		{"no token", "", agentapi.PathPods, false, http.StatusUnauthorized},
		{"another scheme", "Basic alice", agentapi.PathPods, false, http.StatusUnauthorized},
		{"an unknown token", "Bearer mallory", agentapi.PathPods, false, http.StatusUnauthorized},
		{"a token for the API server", "Bearer bob", agentapi.PathPods, false, http.StatusUnauthorized},
		{"nobody to ask", "Bearer alice", agentapi.PathPods, true, http.StatusServiceUnavailable},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g := Guard{Tokens: apiServer{away: tc.away}, Access: access{}, Log: logr.Discard()}
			w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, tc.path, nil)
			r.Header.Set("Authorization", tc.authorization)
			g.Wrap(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })).ServeHTTP(w, r)
			if w.Code != tc.want {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}
