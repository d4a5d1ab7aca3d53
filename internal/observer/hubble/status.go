package hubble

import (
	"context"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// recently is the time in which a namespace has had flows that is listed.
const recently = time.Hour

// GetNodes returns the nodes of the cluster. The numbers of flows are those of the observer, not of a node: they are empty.
func (s *Server) GetNodes(ctx context.Context, _ *observerpb.GetNodesRequest) (*observerpb.GetNodesResponse, error) {
	r, err := s.opts.Reader(ctx)
	if err != nil {
		return nil, err
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	out := &observerpb.GetNodesResponse{}
	for _, n := range nodes {
		node := &observerpb.Node{
			Name: n.Name, Version: n.Version, State: relaypb.NodeState_NODE_UNAVAILABLE, Tls: &observerpb.TLS{Enabled: true},
		}
		if n.Connected {
			node.State = relaypb.NodeState_NODE_CONNECTED
			node.UptimeNs = since(n.Since, s.opts.Now())
		}
		out.Nodes = append(out.Nodes, node)
	}
	return out, nil
}

// GetNamespaces returns the namespaces that had flows in the last hour.
func (s *Server) GetNamespaces(ctx context.Context, _ *observerpb.GetNamespacesRequest) (*observerpb.GetNamespacesResponse, error) {
	r, err := s.opts.Reader(ctx)
	if err != nil {
		return nil, err
	}
	names, err := r.Namespaces(ctx, s.opts.Now().Add(-recently))
	if err != nil {
		return nil, err
	}
	out := &observerpb.GetNamespacesResponse{}
	for _, n := range names {
		out.Namespaces = append(out.Namespaces, &observerpb.Namespace{Namespace: n})
	}
	return out, nil
}

// ServerStatus reports what the observer has. An observer is bounded by bytes and age: it has no largest number of flows. To a caller that may
// not read all namespaces it reports its version only.
func (s *Server) ServerStatus(ctx context.Context, _ *observerpb.ServerStatusRequest) (*observerpb.ServerStatusResponse, error) {
	r, err := s.opts.Reader(ctx)
	if err != nil {
		return nil, err
	}
	st, err := r.Status(ctx)
	if isForbidden(err) {
		return &observerpb.ServerStatusResponse{Version: s.opts.Version}, nil
	}
	if err != nil {
		return nil, err
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	connected, away := byState(nodes)
	return &observerpb.ServerStatusResponse{
		NumFlows:            st.Stored,
		SeenFlows:           st.Received,
		UptimeNs:            since(st.Started, s.opts.Now()),
		NumConnectedNodes:   wrapperspb.UInt32(uint32(len(connected))),
		NumUnavailableNodes: wrapperspb.UInt32(uint32(len(away))),
		UnavailableNodes:    away,
		Version:             s.opts.Version,
		FlowsRate:           st.PerSecond,
	}, nil
}

// isForbidden reports whether an answer is for callers that may read all namespaces.
func isForbidden(err error) bool { return status.Code(err) == codes.PermissionDenied }

func byState(nodes []Node) (connected, away []string) {
	for _, n := range nodes {
		if n.Connected {
			connected = append(connected, n.Name)
		} else {
			away = append(away, n.Name)
		}
	}
	return connected, away
}

// since returns the nanoseconds from a time until now.
func since(t, now time.Time) uint64 {
	if t.IsZero() || now.Before(t) {
		return 0
	}
	return uint64(now.Sub(t))
}
