package hubble_test

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// noon is the time of all tests.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// reader contains flows in memory.
type reader struct {
	mu          sync.Mutex
	flows       []observerapi.Flow
	losses      []observerapi.Loss
	nodes       []hubble.Node
	subscribers []chan hubble.Arrival
	// subscribed is called after a subscription and before Flows: what arrives in between is stored and arrives.
	subscribed func()
}

func (r *reader) Flows(_ context.Context, q hubble.Query, visit func(*observerapi.Flow) bool) (observerapi.Coverage, error) {
	r.mu.Lock()
	flows := slices.Clone(r.flows)
	coverage := observerapi.Coverage{Losses: r.losses}
	r.mu.Unlock()
	slices.SortStableFunc(flows, func(a, b observerapi.Flow) int {
		if q.Newest {
			a, b = b, a
		}
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.Port, b.Port))
	})
	for i := range flows {
		f := &flows[i]
		if f.Last.Before(q.Since) || !q.Until.IsZero() && !f.Last.Before(q.Until) {
			continue
		}
		if !visit(f) {
			break
		}
	}
	return coverage, nil
}

func (r *reader) Subscribe(context.Context) (<-chan hubble.Arrival, error) {
	r.mu.Lock()
	c := make(chan hubble.Arrival, 100)
	r.subscribers = append(r.subscribers, c)
	r.mu.Unlock()
	if r.subscribed != nil {
		r.subscribed()
	}
	return c, nil
}

func (r *reader) Nodes(context.Context) ([]hubble.Node, error) { return r.nodes, nil }

func (r *reader) Namespaces(_ context.Context, since time.Time) ([]string, error) {
	if !since.Equal(noon.Add(-time.Hour)) {
		return nil, errors.New("asked since " + since.String())
	}
	return []string{"shop", "vendor"}, nil
}

func (r *reader) Status(context.Context) (hubble.Status, error) {
	return hubble.Status{Started: noon.Add(-time.Hour), Stored: 7, Received: 9, PerSecond: 1.5}, nil
}

// put stores flows and sends them to subscribers.
func (r *reader) put(flows ...observerapi.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows = append(r.flows, flows...)
	for i := range flows {
		for _, s := range r.subscribers {
			s <- hubble.Arrival{Flow: &flows[i]}
		}
	}
}

func (r *reader) lose(l observerapi.Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subscribers {
		s <- hubble.Arrival{Loss: &l}
	}
}

// serve returns a client of a server with a reader.
func serve(t *testing.T, r *reader) observerpb.ObserverClient {
	t.Helper()
	s := grpc.NewServer()
	hubble.Register(s, hubble.Options{
		Reader:  func(context.Context) (hubble.Reader, error) { return r, nil },
		Version: "v1", Now: func() time.Time { return noon },
	})
	return observerpb.NewObserverClient(dial(t, s))
}

func dial(t *testing.T, s *grpc.Server) *grpc.ClientConn {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	c, err := grpc.NewClient("passthrough:server", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// flowsOf returns the flows of a request that does not follow.
func flowsOf(t *testing.T, c observerpb.ObserverClient, req *observerpb.GetFlowsRequest) []*flowpb.Flow {
	t.Helper()
	out, err := answerOf(t, c, req)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func answerOf(t *testing.T, c observerpb.ObserverClient, req *observerpb.GetFlowsRequest) ([]*flowpb.Flow, error) {
	t.Helper()
	stream, err := c.GetFlows(t.Context(), req)
	if err != nil {
		return nil, err
	}
	var out []*flowpb.Flow
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if f := r.GetFlow(); f != nil {
			out = append(out, f)
		}
	}
}

// ports returns the destination ports of flows, by which tests name them.
func ports(flows []*flowpb.Flow) []uint32 {
	var out []uint32
	for _, f := range flows {
		out = append(out, f.GetL4().GetTCP().GetDestinationPort()+f.GetL4().GetUDP().GetDestinationPort())
	}
	return out
}

var (
	web = observerapi.End{
		Namespace: "shop", Pod: "web-1", UID: "u1", Workload: &agentapi.Workload{Kind: "Deployment", Name: "web"},
		Labels: map[string]string{"app": "web", "tier": "front"}, NamespaceLabels: map[string]string{"team": "a"},
		Node: "node-1", Address: netip.MustParseAddr("10.0.0.1"),
	}
	db = observerapi.End{
		Namespace: "shop", Pod: "db-0", UID: "u2", Workload: &agentapi.Workload{Kind: "StatefulSet", Name: "db"},
		Labels: map[string]string{"app": "db"}, Node: "node-2", Address: netip.MustParseAddr("10.0.1.2"),
	}
	vendor = observerapi.End{Address: netip.MustParseAddr("2001:db8::20"), DomainNames: []string{"api.vendor.example"}}

	allowed = observerapi.Decision{
		Verdict: observerapi.Allowed, Reason: agentapi.ReasonPolicy, Tier: "Admin",
		Policy: &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "base"}, RuleName: "dns", Rules: []int32{0, 2}},
	}
	byDefault = observerapi.Decision{
		Verdict: observerapi.Denied, Reason: agentapi.ReasonDefaultDeny, Tier: "NetworkPolicy",
		IsolatedBy: []agentapi.PolicyRef{{Kind: "NetworkPolicy", Namespace: "shop", Name: "db"}},
	}
)

// flowAt returns an allowed flow from web to db, by its port and time.
func flowAt(port uint16, at time.Time) observerapi.Flow {
	egress := allowed
	return observerapi.Flow{
		First: at, Last: at, Source: web, Destination: db, Service: "shop/database", Protocol: "TCP", Port: port,
		Verdict: observerapi.Allowed, Egress: &egress, Sides: observerapi.Complete, Connections: 1,
	}
}
