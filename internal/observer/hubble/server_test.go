package hubble_test

import (
	"context"
	"math"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// minutes are ten flows, by their port: 10 is ten minutes old, 1 is one minute old.
func minutes() *hubbletest.Reader {
	r := &hubbletest.Reader{}
	for m := range 10 {
		r.Put(hubbletest.FlowAt(uint16(m+1), ago(m+1)))
	}
	return r
}

func ago(minutes int) time.Time { return noon.Add(-time.Duration(minutes) * time.Minute) }

func TestWhichFlows(t *testing.T) {
	even := []*flowpb.FlowFilter{{DestinationPort: []string{"2", "4", "6", "8", "10"}}}
	for name, tc := range map[string]struct {
		req  *observerpb.GetFlowsRequest
		want []uint32
	}{
		"all":              {&observerpb.GetFlowsRequest{Number: math.MaxUint64}, []uint32{10, 9, 8, 7, 6, 5, 4, 3, 2, 1}},
		"last":             {&observerpb.GetFlowsRequest{Number: 3}, []uint32{3, 2, 1}},
		"first":            {&observerpb.GetFlowsRequest{Number: 3, First: true}, []uint32{10, 9, 8}},
		"last that match":  {&observerpb.GetFlowsRequest{Number: 2, Whitelist: even}, []uint32{4, 2}},
		"first that match": {&observerpb.GetFlowsRequest{Number: 2, First: true, Whitelist: even}, []uint32{10, 8}},
		"since":            {&observerpb.GetFlowsRequest{Since: timestamppb.New(ago(3))}, []uint32{3, 2, 1}},
		"until":            {&observerpb.GetFlowsRequest{Until: timestamppb.New(ago(7))}, []uint32{10, 9, 8}},
		"between":          {&observerpb.GetFlowsRequest{Since: timestamppb.New(ago(6)), Until: timestamppb.New(ago(3))}, []uint32{6, 5, 4}},
		"last before":      {&observerpb.GetFlowsRequest{Number: 2, Until: timestamppb.New(ago(3))}, []uint32{5, 4}},
		"first since":      {&observerpb.GetFlowsRequest{Number: 2, First: true, Since: timestamppb.New(ago(6))}, []uint32{6, 5}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := cmp.Diff(tc.want, ports(flowsOf(t, serve(t, minutes()), tc.req))); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

// receive returns the next flow of an answer.
func receive(t *testing.T, stream grpc.ServerStreamingClient[observerpb.GetFlowsResponse]) uint32 {
	t.Helper()
	for {
		r, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if f := r.GetFlow(); f != nil {
			return f.GetL4().GetTCP().GetDestinationPort()
		}
	}
}

func follow(t *testing.T, r *hubbletest.Reader, req *observerpb.GetFlowsRequest) grpc.ServerStreamingClient[observerpb.GetFlowsResponse] {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	req.Follow = true
	stream, err := serve(t, r).GetFlows(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func TestFollowSinceHasNoGapAndNothingTwice(t *testing.T) {
	r := minutes()
	r.Subscribed = func() { // what arrives then is stored, too, before it is read
		r.Put(hubbletest.FlowAt(101, noon), hubbletest.FlowAt(102, noon))
	}
	stream := follow(t, r, &observerpb.GetFlowsRequest{Since: timestamppb.New(ago(2))})
	for _, want := range []uint32{2, 1, 101, 102} {
		if got := receive(t, stream); got != want {
			t.Fatalf("got flow %d, want %d", got, want)
		}
	}
	grown := hubbletest.FlowAt(102, noon)
	grown.Last = noon.Add(time.Second)
	r.Put(hubbletest.FlowAt(103, noon), grown, hubbletest.FlowAt(9, ago(9)), hubbletest.FlowAt(104, noon))
	for _, want := range []uint32{103, 102, 104} {
		if got := receive(t, stream); got != want {
			t.Fatalf("got flow %d, want %d: new connections of 102 come again, and 9 is too old", got, want)
		}
	}
}

func TestFollowAloneShowsNewFlows(t *testing.T) {
	r := minutes()
	r.Subscribed = func() { r.Put(hubbletest.FlowAt(101, noon)) }
	stream := follow(t, r, &observerpb.GetFlowsRequest{})
	if got := receive(t, stream); got != 101 {
		t.Errorf("got flow %d, want 101", got)
	}
}

func TestAnObserverThatEndsEndsTheAnswer(t *testing.T) {
	r := minutes()
	r.Subscribed = func() { r.End() }
	_, err := follow(t, r, &observerpb.GetFlowsRequest{}).Recv()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

func TestFilteredLastIsSentBeforeAnythingArrives(t *testing.T) {
	r := minutes()
	stream := follow(t, r, &observerpb.GetFlowsRequest{Number: 2, Whitelist: []*flowpb.FlowFilter{{DestinationPort: []string{"3", "7", "9"}}}})
	for _, want := range []uint32{7, 3} {
		if got := receive(t, stream); got != want {
			t.Fatalf("got flow %d, want %d", got, want)
		}
	}
	r.Put(hubbletest.FlowAt(4, noon), hubbletest.FlowAt(9, noon))
	if got := receive(t, stream); got != 9 {
		t.Errorf("got flow %d, want 9", got)
	}
}

func TestASecondReportOfAFlowThatWasSentIsNotSentAgain(t *testing.T) {
	r := &hubbletest.Reader{}
	both := hubbletest.FlowAt(1, noon)
	both.Ingress = &hubbletest.Allowed
	r.Subscribed = func() { r.Put(both) }
	stream := follow(t, r, &observerpb.GetFlowsRequest{Since: timestamppb.New(ago(1))})
	if got := receive(t, stream); got != 1 {
		t.Fatalf("got flow %d", got)
	}
	oneSide := hubbletest.FlowAt(1, noon)
	oneSide.Sides = observerapi.OneSide
	r.Put(oneSide, hubbletest.FlowAt(2, noon))
	if got := receive(t, stream); got != 2 {
		t.Errorf("got flow %d, want 2", got)
	}
}

func TestLossesAreAddedUp(t *testing.T) {
	r := minutes()
	r.Losses = []observerapi.Loss{{Node: "node-1", Reason: "queue", Packets: 30, Records: 7}, {Node: "node-2", Reason: "queue", Records: 5}}
	stream := follow(t, r, &observerpb.GetFlowsRequest{Number: 1})
	lost := func() *flowpb.LostEvent {
		for {
			got, err := stream.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if e := got.GetLostEvents(); e != nil {
				return e
			}
		}
	}
	want := &flowpb.LostEvent{Source: flowpb.LostEventSource_OBSERVER_EVENTS_QUEUE, NumEventsLost: 35}
	if d := cmp.Diff(want, lost(), protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	for range 50 {
		r.Lose(observerapi.Loss{Reason: hubble.LossReader, Records: 2})
	}
	var sum, messages uint64
	for sum < 100 {
		sum += lost().GetNumEventsLost()
		messages++
	}
	if sum != 100 || messages > 3 {
		t.Errorf("lost %d in %d messages, want 100 in one a second", sum, messages)
	}
}

// What is missing and has no number is an error of the node, which the hubble command shows.
func TestTimesWithoutFlowsOfANode(t *testing.T) {
	r := minutes()
	r.CompleteSince = noon.Add(-time.Hour)
	r.Losses = []observerapi.Loss{
		{Node: "a", Reason: "restart", First: noon.Add(-9 * time.Minute), Last: noon.Add(-8 * time.Minute)},
		{Node: "a", Reason: "restart", First: noon.Add(-3 * time.Minute), Last: noon.Add(-time.Minute)},
		{Node: "b", Reason: "restart", First: noon.Add(-3 * time.Minute), Last: noon.Add(-time.Minute)},
		{Node: "c", Reason: "absent", First: noon.Add(-2 * time.Minute), Last: noon},
	}
	for name, tc := range map[string]struct {
		req  *observerpb.GetFlowsRequest
		want []*relaypb.NodeStatusEvent
	}{
		"since": {&observerpb.GetFlowsRequest{Since: timestamppb.New(noon.Add(-2 * time.Hour))}, []*relaypb.NodeStatusEvent{
			{StateChange: relaypb.NodeState_NODE_ERROR, Message: "the observer has all flows since 2026-05-01T11:00:00Z"},
			{StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"a"}, Message: "flows between 2026-05-01T11:51:00Z and 2026-05-01T11:52:00Z are missing (restart)"},
			{StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"a", "b"}, Message: "flows between 2026-05-01T11:57:00Z and 2026-05-01T11:59:00Z are missing (restart)"},
			{StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"c"}, Message: "flows between 2026-05-01T11:58:00Z and 2026-05-01T12:00:00Z are missing (absent)"},
		}},
		"last": {&observerpb.GetFlowsRequest{Number: 1}, []*relaypb.NodeStatusEvent{
			{StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"a", "b"}, Message: "flows between 2026-05-01T11:57:00Z and 2026-05-01T11:59:00Z are missing (restart)"},
			{StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"c"}, Message: "flows between 2026-05-01T11:58:00Z and 2026-05-01T12:00:00Z are missing (absent)"},
		}},
	} {
		stream, err := serve(t, r).GetFlows(t.Context(), tc.req)
		if err != nil {
			t.Fatal(err)
		}
		var got []*relaypb.NodeStatusEvent
		for {
			m, err := stream.Recv()
			if err != nil {
				break
			}
			if s := m.GetNodeStatus(); s.GetStateChange() == relaypb.NodeState_NODE_ERROR {
				got = append(got, s)
			}
		}
		if d := cmp.Diff(tc.want, got, protocmp.Transform()); d != "" {
			t.Errorf("%s (-want +got)\n%s", name, d)
		}
	}
}

// An answer has a bounded number of messages about such times, and reports how many it leaves out.
func TestMoreTimesWithoutFlowsThanMessages(t *testing.T) {
	r := minutes()
	for i := range 130 {
		at := noon.Add(-time.Duration(i) * time.Second)
		r.Losses = append(r.Losses, observerapi.Loss{Node: "a", Reason: "restart", First: at, Last: at})
	}
	stream, err := serve(t, r).GetFlows(t.Context(), &observerpb.GetFlowsRequest{Since: timestamppb.New(noon.Add(-time.Hour))})
	if err != nil {
		t.Fatal(err)
	}
	var messages []string
	for {
		m, err := stream.Recv()
		if err != nil {
			break
		}
		if s := m.GetNodeStatus(); s.GetStateChange() == relaypb.NodeState_NODE_ERROR {
			messages = append(messages, s.GetMessage())
		}
	}
	if len(messages) != 101 || messages[100] != "flows of 30 more times are missing: ask for less time" {
		t.Errorf("%d messages, the last %q", len(messages), messages[len(messages)-1])
	}
}

func TestNodesOfAnAnswer(t *testing.T) {
	r := minutes()
	r.NodeList = []hubble.Node{{Name: "a", Connected: true}, {Name: "b"}, {Name: "c", Connected: true}}
	stream, err := serve(t, r).GetFlows(t.Context(), &observerpb.GetFlowsRequest{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []*relaypb.NodeStatusEvent{
		{StateChange: relaypb.NodeState_NODE_CONNECTED, NodeNames: []string{"a", "c"}},
		{StateChange: relaypb.NodeState_NODE_UNAVAILABLE, NodeNames: []string{"b"}},
	} {
		got, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got.GetNodeStatus(), protocmp.Transform()); d != "" {
			t.Errorf("(-want +got)\n%s", d)
		}
	}
}

func TestStatus(t *testing.T) {
	r := minutes()
	r.NodeList = []hubble.Node{{Name: "a", Connected: true, Version: "v0.1.0", Since: noon.Add(-time.Minute)}, {Name: "b"}}
	c := serve(t, r)
	got, err := c.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	want := &observerpb.ServerStatusResponse{
		NumFlows: 10, SeenFlows: 10, UptimeNs: uint64(time.Hour + time.Minute), NumConnectedNodes: wrapperspb.UInt32(1),
		NumUnavailableNodes: wrapperspb.UInt32(1), UnavailableNodes: []string{"b"}, Version: "v1", FlowsRate: 1.5,
	}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	nodes, err := c.GetNodes(t.Context(), &observerpb.GetNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNodes := []*observerpb.Node{
		{
			Name: "a", Version: "v0.1.0", State: relaypb.NodeState_NODE_CONNECTED, Tls: &observerpb.TLS{Enabled: true},
			UptimeNs: uint64(time.Minute),
		},
		{Name: "b", State: relaypb.NodeState_NODE_UNAVAILABLE, Tls: &observerpb.TLS{Enabled: true}},
	}
	if d := cmp.Diff(wantNodes, nodes.GetNodes(), protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	namespaces, err := c.GetNamespaces(t.Context(), &observerpb.GetNamespacesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	wantNamespaces := []*observerpb.Namespace{{Namespace: "shop"}}
	if d := cmp.Diff(wantNamespaces, namespaces.GetNamespaces(), protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

// A caller that may not read all namespaces gets flows, and no names and numbers of nodes.
func TestACallerOfOneNamespace(t *testing.T) {
	r := minutes()
	r.NodeList, r.Forbidden = []hubble.Node{{Name: "a", Connected: true}}, true
	c := serve(t, r)
	got, err := c.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{})
	if d := cmp.Diff(&observerpb.ServerStatusResponse{Version: "v1"}, got, protocmp.Transform()); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if nodes, err := c.GetNodes(t.Context(), &observerpb.GetNodesRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("nodes %v, %v", nodes, err)
	}
	stream, err := c.GetFlows(t.Context(), &observerpb.GetFlowsRequest{Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetFlow() == nil {
		t.Errorf("the answer begins with %v, %v", m, err)
	}
}

func TestStatusWithoutNodesHasNumbers(t *testing.T) {
	got, err := serve(t, &hubbletest.Reader{}).ServerStatus(t.Context(), &observerpb.ServerStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if got.GetNumConnectedNodes() == nil || got.GetNumUnavailableNodes() == nil || math.IsNaN(got.GetFlowsRate()) {
		t.Errorf("got %v", got)
	}
}

func TestHealthOfTheAPI(t *testing.T) {
	s := grpc.NewServer()
	hubble.Register(s, hubble.Options{Now: time.Now})
	got, err := healthpb.NewHealthClient(dial(t, s)).Check(t.Context(), &healthpb.HealthCheckRequest{Service: "hubble.server.Observer"})
	if err != nil || got.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestACallerWithoutRightsGetsTheReadersError(t *testing.T) {
	s := grpc.NewServer()
	hubble.Register(s, hubble.Options{
		Reader: func(context.Context) (hubble.Reader, error) {
			return nil, status.Error(codes.Unauthenticated, "no token")
		},
		Now: time.Now,
	})
	c := observerpb.NewObserverClient(dial(t, s))
	_, flows := answerOf(t, c, &observerpb.GetFlowsRequest{})
	_, nodes := c.GetNodes(t.Context(), &observerpb.GetNodesRequest{})
	_, namespaces := c.GetNamespaces(t.Context(), &observerpb.GetNamespacesRequest{})
	_, state := c.ServerStatus(t.Context(), &observerpb.ServerStatusRequest{})
	for _, err := range []error{flows, nodes, namespaces, state} {
		if status.Code(err) != codes.Unauthenticated {
			t.Errorf("got %v, want Unauthenticated", err)
		}
	}
}

func TestInvalidRequests(t *testing.T) {
	c := serve(t, minutes())
	for want, req := range map[string]*observerpb.GetFlowsRequest{
		"first":  {First: true, Follow: true, Number: 1},
		"until":  {Until: timestamppb.New(noon), Follow: true},
		"since":  {Since: &timestamppb.Timestamp{Nanos: -1}},
		"number": {Number: 1 << 40},
	} {
		_, err := answerOf(t, c, req)
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.HasPrefix(s.Message(), want) {
			t.Errorf("got %v, want InvalidArgument that names %s", err, want)
		}
	}
}

func TestEventsThatKidobanDoesNotHave(t *testing.T) {
	c := serve(t, minutes())
	agent, err := c.GetAgentEvents(t.Context(), &observerpb.GetAgentEventsRequest{})
	if err == nil {
		_, err = agent.Recv()
	}
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "no agent events") {
		t.Errorf("got %v", err)
	}
	debug, err := c.GetDebugEvents(t.Context(), &observerpb.GetDebugEventsRequest{})
	if err == nil {
		_, err = debug.Recv()
	}
	if status.Code(err) != codes.Unimplemented || !strings.Contains(err.Error(), "no debug events") {
		t.Errorf("got %v", err)
	}
}

func TestFieldMask(t *testing.T) {
	got := flowsOf(t, serve(t, minutes()), &observerpb.GetFlowsRequest{
		Number: 1, FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"source.pod_name", "l4.TCP.destination_port", "verdict", "IP", "IP.source", "of_a_later_version", "source.color"}},
	})
	want := []*flowpb.Flow{{
		Verdict: flowpb.Verdict_FORWARDED, Source: &flowpb.Endpoint{PodName: "web-1"},
		L4: &flowpb.Layer4{Protocol: &flowpb.Layer4_TCP{TCP: &flowpb.TCP{DestinationPort: 1}}},
		IP: &flowpb.IP{Source: "10.0.0.1", Destination: "10.0.1.2", IpVersion: flowpb.IPVersion_IPv4},
	}}
	if d := cmp.Diff(want, got, protocmp.Transform()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
