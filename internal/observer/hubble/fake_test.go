package hubble_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observer/hubble/hubbletest"
)

// noon is the time of all tests.
var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// serve returns a client of a server with a reader.
func serve(t *testing.T, r *hubbletest.Reader) observerpb.ObserverClient {
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
