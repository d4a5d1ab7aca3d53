package flowlog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// node is one on which the monitoring's agent runs beside a shop's pods.
type node struct{ directory }

var monitoringAgent = netip.MustParseAddr("10.0.1.30")

func (n node) Pod(addr netip.Addr, at time.Time) (Pod, bool) {
	if addr == monitoringAgent {
		return Pod{Namespace: "monitoring", Name: "otel-agent-8k2vd", Workload: &agentapi.Workload{Kind: "DaemonSet", Name: "otel-agent"}}, true
	}
	return n.directory.Pod(addr, at)
}

const monitoringSet = 9

func (n node) Isolating(set compiler.SetID) []agentapi.PolicyRef {
	if set == monitoringSet {
		return []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "monitoring", Name: "allow-scrape"}, {Kind: "NetworkPolicy", Namespace: "monitoring", Name: "default-deny"}}
	}
	return n.directory.Isolating(set)
}

// day is the log of a node: other refusals, what is accepted, and in between the agent that sends to a Service's port 4317, of which
// backends listen on 14317. The policy allows 4317.
func day(t *testing.T, format Format) string {
	t.Helper()
	r := NewRecorder("ip-10-0-1-1", node{})
	var out strings.Builder
	write := func(e events.Event) {
		event := r.Record(&e)
		line, err := format.Line(&event)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(line)
	}
	for minute := range 24 * 60 {
		for _, name := range []string{"accept-by-rule", "default-deny", "audit-ipv6-icmp", "repeats"} {
			e := samples[name]
			e.Time = at.Add(time.Duration(minute) * time.Minute)
			e.First = e.Time
			write(e)
		}
		if minute%60 == 0 {
			e := events.Event{
				Time: at.Add(time.Duration(minute) * time.Minute), Packets: 3, Bytes: 180, Direction: policy.Egress, Protocol: policy.TCP,
				Source: netip.AddrPortFrom(monitoringAgent, 0), Destination: addrPort("10.0.7.4:14317"), OriginalDestination: addrPort("10.100.3.3:4317"),
				Verdict: events.Deny, Reason: events.ReasonDefault, Tier: policy.TierNetworkPolicy, Set: monitoringSet,
			}
			e.First = e.Time.Add(-30 * time.Second)
			write(e)
		}
	}
	return out.String()
}

// Why is the egress of the monitoring's agent refused? The lines that docs/flow-log.md has one look for hold the whole answer:
// who, where to and by which Service's address, since when and how often, and the policies to change.
func TestWhyIsTheMonitoringRefused(t *testing.T) {
	var first string
	found := 0
	for line := range strings.Lines(day(t, Text)) {
		if strings.Contains(line, "PolicyVerdict: DENY") && strings.Contains(line, "SrcWorkload: DaemonSet otel-agent") {
			if found++; found == 1 {
				first = line
			}
		}
	}
	if found != 24 {
		t.Errorf("%d lines, want 24", found)
	}
	golden(t, "why-monitoring.text", []byte(first))
	fields := map[string]string{}
	for field := range strings.SplitSeq(strings.TrimSuffix(first, "\n"), ";") {
		key, value, ok := strings.Cut(field, ": ")
		if _, twice := fields[key]; !ok || twice {
			t.Errorf("%q", field)
		}
		fields[key] = value
	}
	for key, want := range map[string]string{
		"Node": "ip-10-0-1-1", "SIP": "10.0.1.30", "SrcPod": "monitoring/otel-agent-8k2vd", "SrcWorkload": "DaemonSet otel-agent", // who
		"DIP": "10.0.7.4", "DPORT": "14317", "PROTOCOL": "TCP", "OriginalDst": "10.100.3.3:4317", // where to
		"Direction": "Egress", "PolicyVerdict": "DENY", "Reason": "default-deny", "Tier": "NETWORK_POLICY", // why
		"IsolatedBy": "NetworkPolicy monitoring/allow-scrape,NetworkPolicy monitoring/default-deny",            // by which policies
		"Count":      "3", "First": "2026-11-22T10:29:30.123456789Z", "Time": "2026-11-22T10:30:00.123456789Z", // how often, since when
	} {
		if fields[key] != want {
			t.Errorf("%s: %q, want %q", key, fields[key], want)
		}
	}
}

// The same of the JSON, as a log store groups it.
func TestWhyIsTheMonitoringRefusedInJSON(t *testing.T) {
	packets := map[string]uint64{}
	for line := range bytes.Lines([]byte(day(t, JSON))) {
		var e agentapi.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.Verdict == agentapi.VerdictDeny && e.Source.Namespace == "monitoring" {
			packets[fmt.Sprint(e.Source.Workload.Name, " ", e.Destination.IP, ":", e.Destination.Port, " asked for ", e.OriginalDestination.Port, " ", slices.Collect(names(e.IsolatedBy)))] += e.Count
		}
	}
	if n := packets["otel-agent 10.0.7.4:14317 asked for 4317 [monitoring/allow-scrape monitoring/default-deny]"]; len(packets) != 1 || n != 72 {
		t.Errorf("%v", packets)
	}
}

func names(refs []agentapi.PolicyRef) func(func(string) bool) {
	return func(yield func(string) bool) {
		for _, r := range refs {
			if !yield(r.Namespace + "/" + r.Name) {
				return
			}
		}
	}
}
