package hubble

import (
	"context"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// service is the name under which clients ask for the health of the API.
const service = "hubble.server.Observer"

// Options of a server.
type Options struct {
	// Reader returns what the caller of a request may read. It returns errors of gRPC's status package, such as Unauthenticated.
	Reader func(ctx context.Context) (Reader, error)
	// Version of the observer.
	Version string
	// Now is the current time.
	Now func() time.Time
}

// Server serves Hubble's Observer API.
type Server struct {
	observerpb.UnimplementedObserverServer
	opts Options
}

// Register makes a gRPC server serve the API, and the health service that clients ask first.
func Register(s *grpc.Server, opts Options) {
	observerpb.RegisterObserverServer(s, &Server{opts: opts})
	h := health.NewServer()
	h.SetServingStatus(service, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(s, h)
}

// GetAgentEvents is not implemented: kidoban's agents have no such events.
func (s *Server) GetAgentEvents(*observerpb.GetAgentEventsRequest, grpc.ServerStreamingServer[observerpb.GetAgentEventsResponse]) error {
	return status.Error(codes.Unimplemented, "kidoban records no agent events: kubectl kidoban status shows the state of agents")
}

// GetDebugEvents is not implemented: kidoban's programs have no such events.
func (s *Server) GetDebugEvents(*observerpb.GetDebugEventsRequest, grpc.ServerStreamingServer[observerpb.GetDebugEventsResponse]) error {
	return status.Error(codes.Unimplemented, "kidoban records no debug events: kubectl kidoban explain shows why a flow was denied")
}
