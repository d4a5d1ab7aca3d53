package events

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Each decision of a flow is an event, with the words that agents use.
func TestEventsOfFlows(t *testing.T) {
	f := &observerapi.Flow{
		First: time.Unix(1, 0), Last: time.Unix(2, 0), Source: observerapi.End{Namespace: "shop", Pod: "web", Node: "n1"}, Destination: observerapi.End{Namespace: "shop", Pod: "db", Node: "n2"},
		Protocol: "TCP", Port: 5432, Packets: 3, Egress: &observerapi.Decision{Verdict: observerapi.Allowed, Reason: "policy"},
	}
	for _, tc := range []struct {
		ingress observerapi.Decision
		want    string
	}{
		{observerapi.Decision{Verdict: observerapi.Denied}, agentapi.VerdictDeny},
		{observerapi.Decision{Verdict: observerapi.Allowed, Audited: observerapi.Denied}, agentapi.VerdictAuditDeny},
		{observerapi.Decision{Verdict: observerapi.Denied, Audited: observerapi.Allowed}, agentapi.VerdictAuditAllow},
		{observerapi.Decision{Verdict: observerapi.Allowed}, agentapi.VerdictAccept},
	} {
		f.Ingress = &tc.ingress
		events := eventsOf(f)
		if len(events) != 2 || events[0].Direction != "Egress" || events[0].Node != "n1" || events[0].Verdict != agentapi.VerdictAccept {
			t.Fatalf("%+v", events)
		}
		if e := events[1]; e.Direction != "Ingress" || e.Node != "n2" || e.Verdict != tc.want || e.Destination.Port != 5432 || e.Count != 3 || e.First == nil {
			t.Errorf("%+v, want %s", e, tc.want)
		}
	}
	f.Ingress = nil
	if events := eventsOf(f); len(events) != 1 || byPolicy(&events[0].Event) {
		t.Errorf("%+v", events)
	}
}

// What is missing in the stream of an observer is reported, and is no event.
func TestFollowReportsWhatIsMissing(t *testing.T) {
	body := io.NopCloser(strings.NewReader(`{"protocol":"TCP","port":80,"egress":{"verdict":"Allowed","reason":"policy"}}

{"losses":[{"node":"n1","reason":"map","packets":7}]}
{"ofALaterVersion":{"protocol":"TCP"}}
{"missed":3}
`))
	var ports []uint16
	var missing observerapi.Missing
	err := followFlows(t.Context(), body, func(f *observerapi.Flow) error {
		ports = append(ports, f.Port)
		return nil
	}, func(m observerapi.Missing) {
		missing.Losses = append(missing.Losses, m.Losses...)
		missing.Missed += m.Missed
	})
	if err == nil || !strings.Contains(err.Error(), "ended") || len(ports) != 1 || ports[0] != 80 || len(missing.Losses) != 1 || missing.Losses[0].Packets != 7 || missing.Missed != 3 {
		t.Errorf("flows to ports %v, missing %+v, %v", ports, missing, err)
	}
}
