package ui

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
)

func TestFlowsHaveTheirEndsOnTheMap(t *testing.T) {
	s := serve(t, readShop(t))
	var asked url.Values
	s.options.Observer = func(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
		asked = query
		return answer(t, observerapi.FlowList{Hidden: []string{"bank"}, Flows: []observerapi.Flow{
			{Source: end("shop", "Deployment", "frontend"), Destination: end("shop", "Deployment", "gone"), Verdict: observerapi.Denied},
		}}), nil
	}
	list := get[FlowList](t, s, "/api/flows?follow=true&verdict=Denied")
	if len(list.Flows) != 1 || list.Flows[0].From != "shop/frontend" || list.Flows[0].To != "" || list.Flows[0].Verdict != observerapi.Denied || len(list.Hidden) != 1 {
		t.Errorf("%+v", list)
	}
	if asked.Has("follow") || asked.Get("newest") != "true" || asked.Get("limit") != "1000" || asked.Get("verdict") != "Denied" {
		t.Errorf("asked the observer for %v", asked)
	}
}

func TestAReaderWithoutRights(t *testing.T) {
	s := serve(t, readShop(t))
	if w := s.request("GET", "/api/flows", ""); w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "no observer") {
		t.Errorf("without an observer: %d %s", w.Code, w.Body)
	}
	s.options.Observer = func(context.Context, string, url.Values) (io.ReadCloser, error) {
		return nil, fmt.Errorf("ask: %w", NoRights{errors.New("you may not create tokens")})
	}
	for _, path := range []string{"/api/flows", "/api/hits?since=1h"} {
		w := s.request("GET", path, "")
		if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), `"rights":true`) || !strings.Contains(w.Body.String(), "you may not create tokens") {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	if g := get[Graph](t, s, "/api/graph"); g.Traffic == nil || !g.Traffic.Rights {
		t.Errorf("traffic: %+v", g.Traffic)
	}
}

// A stream starts with what the observer sends, reports that the observer is away, and goes on after the last flow when it is back.
func TestTheStreamOutlivesTheObserver(t *testing.T) {
	s := serve(t, readShop(t))
	const first = `{"first":"2026-01-02T03:00:00Z","last":"2026-01-02T03:04:05Z","source":{"namespace":"shop","workload":{"kind":"Deployment","name":"frontend"}},"destination":{},"protocol":"TCP","verdict":"Denied","sides":"Complete","connections":1}`
	asked := make(chan string, 8)
	turn := 0
	s.options.Observer = func(_ context.Context, path string, query url.Values) (io.ReadCloser, error) {
		turn++
		asked <- query.Get("since")
		switch turn {
		case 1:
			return io.NopCloser(strings.NewReader(first + "\n\n")), nil
		case 2:
			return nil, errors.New("no replica is ready")
		}
		in, out := io.Pipe()
		go func() {
			_, _ = out.Write([]byte(strings.Replace(first, `"connections":1`, `"connections":2`, 1) + "\n"))
		}()
		return in, nil
	}
	server := httptest.NewServer(http.HandlerFunc(s.live))
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r, _ := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"?since=1h", nil)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	var text strings.Builder
	lines := bufio.NewScanner(response.Body)
	for lines.Scan() && !strings.Contains(text.String(), `"connections":2`) {
		text.WriteString(lines.Text() + "\n")
	}
	at := 0
	for _, want := range []string{
		"event: live", `id: 2026-01-02T03:04:05Z`, `"connections":1,"from":"shop/frontend"`, "event: lost", "has ended its answer", "event: lost", "no replica is ready", "event: live", `"connections":2`,
	} {
		n := strings.Index(text.String()[at:], want)
		if n < 0 {
			t.Fatalf("no %q after %d in\n%s", want, at, text.String())
		}
		at += n
	}
	if a, b, c := <-asked, <-asked, <-asked; a != "1h" || b != "2026-01-02T03:04:05Z" || c != b {
		t.Errorf("asked for flows since %s, %s, %s", a, b, c)
	}
	if got := response.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Error(got)
	}
}

func TestWhatIsInForce(t *testing.T) {
	s := serve(t, readShop(t))
	if w := s.request("GET", "/api/inforce", ""); w.Code != http.StatusNotFound {
		t.Errorf("without agents: %d", w.Code)
	}
	asked := 0
	s.options.InForce = func(context.Context) (*InForce, error) {
		asked++
		return &InForce{
			Policies: map[string]PolicyInForce{"NetworkPolicy shop/backend": {Nodes: 3, InForce: 2, Resolved: "True", Waiting: []NodeState{{Node: "n3", State: agentapi.StatePending}}}},
			Pods: map[model.Workload]WorkloadInForce{
				{Namespace: "shop", Kind: "Deployment", Name: "backend"}: {Pods: 2, InForce: 1, Nodes: []string{"n1", "n3"}},
				{Namespace: "shop", Kind: "Deployment", Name: "gone"}:    {Pods: 1},
			},
		}, nil
	}
	for range 2 {
		out := get[InForce](t, s, "/api/inforce")
		if p := out.Policies["NetworkPolicy shop/backend"]; p.InForce != 2 || p.Nodes != 3 || len(out.Workloads) != 1 || out.Workloads["shop/backend"].Pods != 2 {
			t.Errorf("%+v", out)
		}
	}
	if asked != 1 {
		t.Errorf("the agents were asked %d times within seconds", asked)
	}
	if g := get[Graph](t, s, "/api/graph"); !g.Agents {
		t.Error("the page does not ask")
	}
}
