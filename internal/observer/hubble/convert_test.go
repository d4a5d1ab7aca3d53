package hubble_test

import (
	"net/netip"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// only returns the only flow of an answer.
func only(t *testing.T, f observerapi.Flow, filters ...*flowpb.FlowFilter) *flowpb.Flow {
	t.Helper()
	got := flowsOf(t, serve(t, hubbletest.New(f)), &observerpb.GetFlowsRequest{Whitelist: filters})
	if len(got) != 1 {
		t.Fatalf("got %d flows, want 1", len(got))
	}
	return got[0]
}

func summaryOf(f *flowpb.Flow) string {
	return f.GetSummary() //nolint:staticcheck // the CLI prints it
}

func TestAllFieldsOfAFlow(t *testing.T) {
	f := hubbletest.FlowAt(5432, noon.Add(-time.Second))
	f.Ingress, f.Verdict, f.Connections = &hubbletest.ByDefault, observerapi.Denied, 3
	got := only(t, f)
	want := &flowpb.Flow{
		Time:    timestamppb.New(noon.Add(-time.Second)),
		Uuid:    got.GetUuid(),
		Verdict: flowpb.Verdict_DROPPED, DropReasonDesc: flowpb.DropReason_POLICY_DENIED,
		IP: &flowpb.IP{Source: "10.0.0.1", Destination: "10.0.1.2", IpVersion: flowpb.IPVersion_IPv4},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{DestinationPort: 5432}}},
		Source: &flowpb.Endpoint{
			Identity: got.GetSource().GetIdentity(), Namespace: "shop", PodName: "web-1",
			Labels: []string{
				"k8s:io.kubernetes.pod.namespace=shop", "k8s:io.cilium.k8s.namespace.labels.team=a", "k8s:app=web", "k8s:tier=front",
			},
			Workloads: []*flowpb.Workload{{Kind: "Deployment", Name: "web"}},
		},
		Destination: &flowpb.Endpoint{
			Identity: got.GetDestination().GetIdentity(), Namespace: "shop", PodName: "db-0",
			Labels:    []string{"k8s:io.kubernetes.pod.namespace=shop", "k8s:app=db"},
			Workloads: []*flowpb.Workload{{Kind: "StatefulSet", Name: "db"}},
		},
		Type: flowpb.FlowType_L3_L4, NodeName: "node-2", IsReply: wrapperspb.Bool(false),
		EventType:          &flowpb.CiliumEventType{Type: 5},
		DestinationService: &flowpb.Service{Namespace: "shop", Name: "database"},
		TrafficDirection:   flowpb.TrafficDirection_INGRESS,
		EgressAllowedBy: []*flowpb.Policy{{
			Kind: "ClusterNetworkPolicy", Name: "base", Labels: []string{"kidoban:tier=Admin", "kidoban:ruleName=dns", "kidoban:rules=0,2"},
		}},
		IngressDeniedBy: []*flowpb.Policy{{Kind: "NetworkPolicy", Namespace: "shop", Name: "db"}},
	}
	want.DropReason = 133 //nolint:staticcheck // older clients read it
	//nolint:staticcheck // the CLI prints it
	want.Summary = "TCP 5432; 3 connections; egress allowed by ClusterNetworkPolicy base; ingress denied: default-deny"
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if s, d := got.GetSource().GetIdentity(), got.GetDestination().GetIdentity(); s < 256 || d < 256 || s == d {
		t.Errorf("identities %d and %d", s, d)
	}
	if len(got.GetUuid()) != 36 {
		t.Errorf("UUID %q", got.GetUuid())
	}
}

func TestEndsThatAreNoPods(t *testing.T) {
	f := hubbletest.FlowAt(443, noon)
	f.Destination, f.Service = hubbletest.Vendor, ""
	f.Source.Address = netip.MustParseAddr("2001:db8:1::1")
	got := only(t, f)
	if d := cmp.Diff([]string{"reserved:world"}, got.GetDestination().GetLabels()); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"api.vendor.example"}, got.GetDestinationNames()); d != "" {
		t.Error(d)
	}
	if got.GetIP().GetIpVersion() != flowpb.IPVersion_IPv6 || got.GetDestination().GetIdentity() != 2 || got.GetDestinationService() != nil {
		t.Errorf("got %v", got)
	}

	f.Destination = observerapi.End{IsNode: true, Node: "node-1", Address: netip.MustParseAddr("192.0.2.1")}
	if got := only(t, f).GetDestination(); got.GetIdentity() != 1 || got.GetLabels()[0] != "reserved:host" {
		t.Errorf("own node: %v", got)
	}
	f.Destination.Node = "node-9"
	if got := only(t, f).GetDestination(); got.GetIdentity() != 6 || got.GetLabels()[0] != "reserved:remote-node" {
		t.Errorf("other node: %v", got)
	}
	f.Destination = observerapi.End{} // more addresses than are kept
	if got := only(t, f).GetDestination(); got.GetIdentity() != 0 || got.GetLabels() != nil {
		t.Errorf("unknown address: %v", got)
	}
	f.Source.Address, f.Protocol = netip.Addr{}, "47"
	if got := only(t, f); got.GetIP() != nil || got.GetL4() != nil {
		t.Errorf("no addresses, protocol 47: %v", got)
	}
}

func TestAHiddenEndHasNamespaceAndWorkloadOnly(t *testing.T) {
	f := hubbletest.FlowAt(443, noon)
	f.Destination = observerapi.End{Namespace: "other", Workload: &agentapi.Workload{Kind: "Deployment", Name: "x"}, Hidden: true}
	got := only(t, f).GetDestination()
	want := &flowpb.Endpoint{
		Identity: got.GetIdentity(), Namespace: "other", Labels: []string{"k8s:io.kubernetes.pod.namespace=other"},
		Workloads: []*flowpb.Workload{{Kind: "Deployment", Name: "x"}},
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestWhatAuditedPoliciesWouldChange(t *testing.T) {
	staged := []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "staged"}}
	deny := hubbletest.Allowed
	deny.Audited, deny.AuditedBy = observerapi.Denied, staged
	f := hubbletest.FlowAt(443, noon)
	f.Egress, f.Verdict = &deny, observerapi.WouldBeDeny
	got := only(t, f)
	if got.GetVerdict() != flowpb.Verdict_AUDIT || len(got.GetEgressAllowedBy()) != 1 || got.GetEgressDeniedBy()[0].GetName() != "staged" {
		t.Errorf("would be denied: %v", got)
	}
	if got := only(t, f, &flowpb.FlowFilter{Verdict: []flowpb.Verdict{flowpb.Verdict_FORWARDED}}); got.GetVerdict() != flowpb.Verdict_FORWARDED {
		t.Errorf("the packets were forwarded: %v", got)
	}

	allow := hubbletest.ByDefault
	allow.Audited, allow.AuditedBy = observerapi.Allowed, staged
	f.Egress, f.Verdict = &allow, observerapi.WouldBeAllow
	got = only(t, f)
	if got.GetVerdict() != flowpb.Verdict_AUDIT || got.GetEgressAllowedBy()[0].GetName() != "staged" || got.GetEgressDeniedBy()[0].GetName() != "db" {
		t.Errorf("would be allowed: %v", got)
	}
	if got := only(t, f, &flowpb.FlowFilter{Verdict: []flowpb.Verdict{flowpb.Verdict_DROPPED}}); got.GetVerdict() != flowpb.Verdict_DROPPED {
		t.Errorf("the packets were dropped: %v", got)
	}
	want := "TCP 443; 1 connection; egress denied: default-deny, would be allowed by NetworkPolicy shop/staged"
	if summaryOf(got) != want {
		t.Errorf("summary %q, want %q", summaryOf(got), want)
	}
}

func TestAFlowKeepsItsUUIDWhenItGrows(t *testing.T) {
	f := hubbletest.FlowAt(443, noon)
	before := only(t, f).GetUuid()
	f.Connections, f.Last = 9, noon.Add(5*time.Second)
	if after := only(t, f).GetUuid(); after != before {
		t.Errorf("UUID %s became %s", before, after)
	}
	f.Port++
	if other := only(t, f).GetUuid(); other == before {
		t.Error("another flow has the same UUID")
	}
}

func TestPacketsThatOpenNoConnection(t *testing.T) {
	f := hubbletest.FlowAt(443, noon)
	f.Connections, f.Packets, f.Continues = 0, 7, true
	traces := &flowpb.FlowFilter{EventType: []*flowpb.EventTypeFilter{{Type: 4}}}
	got := only(t, f, traces)
	want := "TCP 443; 7 packets of a connection that is forgotten; egress allowed by ClusterNetworkPolicy base"
	if summaryOf(got) != want || got.GetTraceReason() != flowpb.TraceReason_ESTABLISHED || got.GetIsReply().GetValue() {
		t.Errorf("continues: %v", got)
	}
	f.Packets, f.Reply = 1, true
	got = only(t, f, traces)
	want = "TCP 443 reply; 1 packet; egress allowed by ClusterNetworkPolicy base"
	if summaryOf(got) != want || got.GetTraceReason() != flowpb.TraceReason_REPLY || !got.GetIsReply().GetValue() {
		t.Errorf("reply: %v", got)
	}
}

func TestDropReasons(t *testing.T) {
	for reason, want := range map[string]flowpb.DropReason{
		agentapi.ReasonPolicy:       flowpb.DropReason_POLICY_DENY,
		agentapi.ReasonDefaultDeny:  flowpb.DropReason_POLICY_DENIED,
		agentapi.ReasonRevoked:      flowpb.DropReason_POLICY_DENIED,
		agentapi.ReasonMapFull:      flowpb.DropReason_POLICY_DENIED,
		agentapi.ReasonUnknown:      flowpb.DropReason_POLICY_DENIED,
		agentapi.ReasonSpoofed:      flowpb.DropReason_INVALID_SOURCE_IP,
		agentapi.ReasonInvalid:      flowpb.DropReason_INVALID_PACKET_DROPPED,
		agentapi.ReasonUnparsable:   flowpb.DropReason_CT_TRUNCATED_OR_INVALID_HEADER,
		agentapi.ReasonEncapsulated: flowpb.DropReason_ENCAPSULATION_TRAFFIC_IS_PROHIBITED,
	} {
		f := hubbletest.FlowAt(443, noon)
		d := hubbletest.ByDefault
		d.Reason = reason
		f.Egress, f.Verdict = &d, observerapi.Denied
		if got := only(t, f); got.GetDropReasonDesc() != want {
			t.Errorf("%s: got %s, want %s", reason, got.GetDropReasonDesc(), want)
		}
	}
}
