package events

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.Local)

func event(second int, verdict, pod string) agentapi.StreamedEvent {
	e := agentapi.StreamedEvent{}
	e.Time, e.Verdict, e.Direction, e.Node, e.Protocol = noon.Add(time.Duration(second)*time.Second), verdict, "Ingress", "n1", "TCP"
	e.Source = agentapi.Endpoint{IP: netip.MustParseAddr("10.0.0.1"), Port: 40000}
	e.Destination = agentapi.Endpoint{IP: netip.MustParseAddr("10.0.0.2"), Port: 80, Namespace: "shop", Pod: pod}
	e.Reason = agentapi.ReasonDefaultDeny
	e.IsolatedBy = []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "default-deny"}}
	return e
}

func TestEventsOfAllNodesComeInTheOrderOfTime(t *testing.T) {
	events := make(chan agentapi.StreamedEvent, 3)
	for _, second := range []int{3, 1, 2} {
		events <- event(second, agentapi.VerdictDeny, "backend")
	}
	close(events)
	var got []string
	err := merge(events, filter{}, false, func(e *agentapi.StreamedEvent) error {
		got = append(got, e.Time.Format("05"))
		return nil
	})
	if err != nil || strings.Join(got, " ") != "01 02 03" {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAuditVerdictsAreOneToo(t *testing.T) {
	for verdict, want := range map[string]bool{
		agentapi.VerdictAccept: false, agentapi.VerdictDeny: false, agentapi.VerdictAuditDeny: true, agentapi.VerdictAuditAllow: true,
	} {
		e := event(0, verdict, "backend")
		e.Audited = []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "staged"}}
		f := filter{verdict: bothAudits, policy: "shop/staged"}
		if got := f.wants(&e.Event); got != want {
			t.Errorf("%s: %v, want %v", verdict, got, want)
		}
		p := printer{env: &command.Env{}}
		if line := p.line(&e); !strings.Contains(line, "no rule of shop/default-deny (audited: NetworkPolicy shop/staged)") {
			t.Errorf("%q", line)
		}
	}
}

// Streams that are followed do not end: none may wait for another.
func TestManyNodesAreFollowedAtOnce(t *testing.T) {
	a := &agents.Agents{Pods: make([]corev1.Pod, 40)}
	for i := range a.Pods {
		a.Pods[i].Spec.NodeName = fmt.Sprint("n", i)
	}
	open := func(_ context.Context, pod *corev1.Pod, _ string) (io.ReadCloser, error) {
		r, w := io.Pipe() // which stays open
		e := event(0, agentapi.VerdictDeny, "backend")
		e.Node = pod.Spec.NodeName
		go func() { _ = json.NewEncoder(w).Encode(e) }()
		return r, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	seen := map[string]bool{}
	err := stream(ctx, a, open, "", true, filter{}, func(e *agentapi.StreamedEvent) error {
		if seen[e.Node] = true; len(seen) == len(a.Pods) {
			cancel()
		}
		return nil
	}, io.Discard)
	if err != nil || len(seen) != len(a.Pods) {
		t.Errorf("%d of %d nodes were heard, %v", len(seen), len(a.Pods), err)
	}
}

// An agent that restarts ends its stream. With --follow, silence must not look like peace.
func TestAStreamThatEndsIsTold(t *testing.T) {
	a := &agents.Agents{Pods: make([]corev1.Pod, 1)}
	a.Pods[0].Spec.NodeName = "n7"
	open := func(context.Context, *corev1.Pod, string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("")), nil
	}
	for _, follow := range []bool{true, false} {
		var errOut strings.Builder
		err := stream(context.Background(), a, open, "", follow, filter{}, nil, &errOut)
		if reported := strings.Contains(errOut.String(), "n7"); reported != follow || err != nil != follow {
			t.Errorf("follow %v: %q, %v", follow, errOut.String(), err)
		}
	}
}

func TestFilters(t *testing.T) {
	e := event(0, agentapi.VerdictDeny, "backend-5d9c")
	byRule := event(0, agentapi.VerdictAccept, "backend-5d9c")
	byRule.IsolatedBy, byRule.Policy = nil, &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "backend"}}
	names := map[netip.Addr]string{netip.MustParseAddr("10.0.0.1"): "shop/frontend-1"}
	for _, tc := range []struct {
		filter
		deny, accept bool
	}{
		{filter{}, true, true},
		{filter{verdict: agentapi.VerdictDeny}, true, false},
		{filter{policy: "shop/default-deny"}, true, false},
		{filter{policy: "shop/backend"}, false, true},
		{filter{policy: "other/backend"}, false, false},
		{filter{pod: "shop/backend"}, true, true},
		{filter{pod: "shop/frontend"}, false, false},
		{filter{pod: "shop/frontend", names: names}, true, true},
	} {
		if got := tc.wants(&e.Event); got != tc.deny {
			t.Errorf("%+v: the refusal %v", tc.filter, got)
		}
		if got := tc.wants(&byRule.Event); got != tc.accept {
			t.Errorf("%+v: the acceptance %v", tc.filter, got)
		}
	}
}

func TestALine(t *testing.T) {
	e := event(0, agentapi.VerdictDeny, "backend-5d9c")
	first := e.Time.Add(-30 * time.Second)
	e.Count, e.First = 7, &first
	e.OriginalDestination = &agentapi.Endpoint{IP: netip.MustParseAddr("10.96.0.1"), Port: 8080}
	e.Missed = 3
	p := printer{env: &command.Env{}, names: map[netip.Addr]string{e.Source.IP: "shop/frontend-1"}}
	want := `3 events of node n1 before this one are lost
12:00:00.000  DENY        Ingress  shop/frontend-1 → shop/backend-5d9c:80 TCP (asked 10.96.0.1:8080)  no rule of shop/default-deny  ×7 in 30s  on n1`
	if got := p.line(&e); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// A rule of a ClusterNetworkPolicy is named, with its tier.
func TestALineOfAClusterPolicy(t *testing.T) {
	e := event(0, agentapi.VerdictDeny, "backend-5d9c")
	e.IsolatedBy, e.Tier = nil, "Admin"
	e.Policy = &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "tenants"}, RuleName: "others", Rules: []int32{2}}
	p := printer{env: &command.Env{}}
	if got := p.line(&e); !strings.Contains(got, "by ClusterNetworkPolicy tenants, rule others (Admin tier)") {
		t.Errorf("%s", got)
	}
	if e.Policy.RuleName = ""; !strings.Contains(p.line(&e), "by ClusterNetworkPolicy tenants, rules [2] (Admin tier)") {
		t.Errorf("%s", p.line(&e))
	}
	if f := (filter{policy: "tenants"}); !f.wants(&e.Event) {
		t.Error("not found by its name")
	}
}
