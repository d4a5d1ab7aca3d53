package onward_test

import (
	"context"
	"net"
	"net/http"
	"sync"
	"testing"

	logspb "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kidoban/kidoban/internal/observer/onward"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/sink"
)

// collector receives OTLP logs over gRPC. It fails with the errors that it has, one for each request.
type collector struct {
	address string

	mu      sync.Mutex
	errors  []error
	data    []*logspb.LogsData
	headers []metadata.MD
}

func newCollector(t *testing.T, errors ...error) *collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &collector{address: l.Addr().String(), errors: errors}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "opentelemetry.proto.collector.logs.v1.LogsService", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			request := &logspb.LogsData{} // an ExportLogsServiceRequest has the same form
			if err := decode(request); err != nil {
				return nil, err
			}
			c.mu.Lock()
			defer c.mu.Unlock()
			if len(c.errors) > 0 {
				err := c.errors[0]
				c.errors = c.errors[1:]
				return nil, err
			}
			header, _ := metadata.FromIncomingContext(ctx)
			c.data, c.headers = append(c.data, request), append(c.headers, header)
			return &emptypb.Empty{}, nil
		}}},
	}, c)
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	return c
}

func overGRPC(t *testing.T, c *collector) sink.Sink {
	t.Helper()
	s, err := onward.OTLPOverGRPC(onward.OTLPOptions{Endpoint: "http://" + c.address, Header: http.Header{"Authorization": {"Bearer x"}}, Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFlowsAsOTLPLogsOverGRPC(t *testing.T) {
	c := newCollector(t, status.Error(codes.Unavailable, "not yet"))
	send(t, []observerapi.Flow{denied()}, overGRPC(t, c))
	if len(c.data) != 1 || len(c.data[0].GetResourceLogs()[0].GetScopeLogs()[0].GetLogRecords()) != 1 {
		t.Fatalf("received %v", c.data)
	}
	if got := c.headers[0].Get("authorization"); len(got) != 1 || got[0] != "Bearer x" {
		t.Errorf("headers %v", c.headers[0])
	}
}

// A receiver that does not take flows gets them once.
func TestACollectorThatRejects(t *testing.T) {
	c := newCollector(t, status.Error(codes.InvalidArgument, "no"))
	send(t, []observerapi.Flow{denied()}, overGRPC(t, c))
	if len(c.data) != 0 || len(c.errors) != 0 {
		t.Errorf("received %v", c.data)
	}
}
