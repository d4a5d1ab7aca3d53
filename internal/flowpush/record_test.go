package flowpush

import (
	"net/netip"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/policy"
)

// shop is a directory in which 10.0.0.1 was web's until a time, and another pod's afterwards.
type shop struct{ until time.Time }

func (s shop) Pod(addr netip.Addr, at time.Time) (flowlog.Pod, bool) {
	switch {
	case addr != netip.MustParseAddr("10.0.0.1"):
		return flowlog.Pod{}, false
	case at.Before(s.until):
		return flowlog.Pod{Namespace: "shop", Name: "web", UID: "1"}, true
	}
	return flowlog.Pod{Namespace: "shop", Name: "another", UID: "2"}, true
}

var (
	egress  = agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "egress"}
	deny    = agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}
	audited = agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "audited"}
)

func (shop) Rule(id compiler.RuleID) (agentapi.RuleRef, bool) {
	return agentapi.RuleRef{PolicyRef: egress, RuleName: "out", Rules: []int32{1, 3}}, id == 7
}
func (shop) Isolating(compiler.SetID) []agentapi.PolicyRef { return []agentapi.PolicyRef{deny} }
func (shop) Audited(compiler.SetID) ([]agentapi.PolicyRef, bool) {
	return []agentapi.PolicyRef{audited}, true
}
func (shop) DomainNames(netip.Addr) []string {
	return []string{"api.example", "www.example", "x.example", "y.example"}
}

func (shop) NameMiss(compiler.SetID, policy.Flow) *agentapi.NameMiss { return nil }

func TestRecords(t *testing.T) {
	first := time.UnixMilli(1_000_000)
	last := first.Add(4 * time.Second)
	web, outside := []byte{10, 0, 0, 1}, []byte{203, 0, 113, 10}
	from, to := netip.MustParseAddrPort("10.0.0.1:41000"), netip.MustParseAddrPort("203.0.113.10:443")
	asWeb := &flow.End{Address: web, Port: 41000, Uid: "1", Namespace: "shop", Name: "web"}
	named := &flow.End{Address: outside, Port: 443, DomainNames: []string{"api.example", "www.example", "x.example"}}
	base := events.Event{
		First: first, Time: last, Packets: 3, Bytes: 180, Direction: policy.Egress, Source: from, Destination: to, Protocol: policy.TCP, Verdict: events.Allow,
	}
	for name, tc := range map[string]struct {
		change func(*events.Event)
		want   *flow.Record
	}{
		"a rule allows, behind a Service": {
			func(e *events.Event) {
				e.Reason, e.Rule, e.Tier = events.ReasonRule, 7, policy.TierAdmin
				e.OriginalDestination = netip.MustParseAddrPort("10.100.0.1:80")
			},
			&flow.Record{
				Verdict: flow.Record_ALLOW, Reason: agentapi.ReasonPolicy, Tier: "Admin", OriginalDestination: &flow.End{Address: []byte{10, 100, 0, 1}, Port: 80},
				Policy: &flow.Rule{Policy: &flow.Policy{Kind: "ClusterNetworkPolicy", Name: "egress"}, Indexes: []int32{1, 3}, Name: "out"},
			},
		},
		"no policy isolates the pod": {
			func(e *events.Event) { e.Reason = events.ReasonDefault },
			&flow.Record{Verdict: flow.Record_ALLOW, Reason: agentapi.ReasonDefaultAllow},
		},
		"the default denies": {
			func(e *events.Event) {
				e.Reason, e.Verdict, e.Set, e.Tier = events.ReasonDefault, events.Deny, 2, policy.TierNetworkPolicy
			},
			&flow.Record{
				Verdict: flow.Record_DENY, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy",
				IsolatedBy: []*flow.Policy{{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}},
			},
		},
		"an audited policy would deny": {
			func(e *events.Event) {
				e.Reason, e.Verdict, e.Set, e.Tier, e.WouldBe = events.ReasonDefault, events.AuditDeny, 3, policy.TierNetworkPolicy, true
			},
			&flow.Record{
				Verdict: flow.Record_AUDIT_DENY, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy", WouldBe: true,
				IsolatedBy: []*flow.Policy{{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}},
				Audited:    []*flow.Policy{{Kind: "NetworkPolicy", Namespace: "shop", Name: "audited"}},
			},
		},
		"the answer of a forgotten connection": {
			func(e *events.Event) { e.Reason, e.Continues, e.Reply = events.ReasonDefault, true, true },
			&flow.Record{Verdict: flow.Record_ALLOW, Reason: agentapi.ReasonDefaultAllow, Continues: true, Reply: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := base
			tc.change(&e)
			event := flowlog.NewRecorder("node", shop{first.Add(time.Second)}).Record(&e)
			got, want := recordOf(&e, &event), tc.want
			want.First, want.Last, want.Packets, want.Bytes = first.UnixMilli(), last.UnixMilli(), 3, 180
			want.Direction, want.Protocol, want.Source, want.Destination = flow.Record_EGRESS, "TCP", asWeb, named
			if !proto.Equal(got, want) {
				t.Errorf("got\n%s, want\n%s", protojson.Format(got), protojson.Format(want))
			}
		})
	}
}

// The address belongs to another pod when the counts are read.
func TestARecordNamesThePodOfItsFirstPacket(t *testing.T) {
	first := time.UnixMilli(1_000_000)
	for uid, until := range map[string]time.Time{"1": first.Add(time.Second), "2": first} {
		e := events.Event{First: first, Time: first, Packets: 1, Direction: policy.Ingress, Protocol: policy.UDP, Reason: events.ReasonDefault,
			Source: netip.MustParseAddrPort("203.0.113.10:53"), Destination: netip.MustParseAddrPort("10.0.0.1:35000")}
		event := flowlog.NewRecorder("node", shop{until}).Record(&e)
		if r := recordOf(&e, &event); r.GetDestination().GetUid() != uid || r.GetSource().GetUid() != "" || len(r.GetSource().GetDomainNames()) > 0 {
			t.Errorf("%s", protojson.Format(r))
		}
	}
}

// What has no ends to show is a sum for one pod.
func TestUnlistedRecords(t *testing.T) {
	at := time.UnixMilli(1_000_000)
	e := events.Event{First: at, Time: at, Packets: 9, Direction: policy.Egress, Unlisted: true, Reason: events.ReasonDefault,
		Source: netip.MustParseAddrPort("10.0.0.1:0"), Destination: netip.AddrPortFrom(netip.IPv6Unspecified(), 0)}
	event := flowlog.NewRecorder("node", shop{at.Add(time.Second)}).Record(&e)
	r := recordOf(&e, &event)
	if !r.GetUnlisted() || r.GetSource().GetName() != "web" || len(r.GetDestination().GetAddress()) > 0 || r.GetProtocol() != "" {
		t.Errorf("%s", protojson.Format(r))
	}
}
