package hubble

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// mostLast is the largest number of flows that a client can ask for from the end, less than all: they are collected before they are
	// sent.
	mostLast = 100_000
	// maxGaps is how many messages about times without flows of a node an answer has.
	maxGaps = 100
	// lossInterval is the time between two messages about losses.
	lossInterval = time.Second
)

// GetFlows sends the flows of a request.
func (s *Server) GetFlows(req *observerpb.GetFlowsRequest, stream grpc.ServerStreamingServer[observerpb.GetFlowsResponse]) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	reader, err := s.opts.Reader(ctx)
	if err != nil {
		return err
	}
	a, err := s.newAnswer(req, stream)
	if err != nil {
		return err
	}
	var arrivals <-chan Arrival
	if req.GetFollow() { // before what is stored is read, so that nothing is between the two
		if arrivals, err = reader.Subscribe(ctx); err != nil {
			return err
		}
	}
	if err := a.nodes(ctx, reader); err != nil {
		return err
	}
	if err := a.stored(ctx, reader); err != nil {
		return err
	}
	if !req.GetFollow() {
		return nil
	}
	return a.follow(ctx, arrivals)
}

// answer is the answer to one request.
type answer struct {
	req     *observerpb.GetFlowsRequest
	stream  grpc.ServerStreamingServer[observerpb.GetFlowsResponse]
	filters *filters
	mask    *mask
	now     func() time.Time
	// since is the beginning of the time that the client asks for, and began is when it asked.
	since, began time.Time
	shown        pairing.Shown
	losses       losses
}

func (s *Server) newAnswer(req *observerpb.GetFlowsRequest, stream grpc.ServerStreamingServer[observerpb.GetFlowsResponse]) (*answer, error) {
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	f, err := compile(req.GetWhitelist(), req.GetBlacklist())
	if err != nil {
		return nil, err
	}
	a := &answer{req: req, stream: stream, filters: f, mask: newMask(req.GetFieldMask()), now: s.opts.Now, began: s.opts.Now(), shown: pairing.Shown{}}
	if req.GetSince() != nil {
		a.since = req.GetSince().AsTime()
	}
	return a, nil
}

func checkRequest(req *observerpb.GetFlowsRequest) error {
	if unknown := req.ProtoReflect().GetUnknown(); len(unknown) > 0 {
		return status.Error(codes.InvalidArgument, "the request has a field that this version of kidoban does not have")
	}
	switch {
	case req.GetExtensions() != nil:
		return status.Error(codes.InvalidArgument, "extensions: kidoban has no extensions of Hubble's API")
	case req.GetFirst() && req.GetFollow():
		return status.Error(codes.InvalidArgument, "first cannot be combined with follow")
	case req.GetUntil() != nil && req.GetFollow():
		return status.Error(codes.InvalidArgument, "until cannot be combined with follow")
	case req.GetSince() != nil && !req.GetSince().IsValid():
		return status.Error(codes.InvalidArgument, "since: not a valid time")
	case req.GetUntil() != nil && !req.GetUntil().IsValid():
		return status.Error(codes.InvalidArgument, "until: not a valid time")
	case !req.GetFirst() && req.GetNumber() > mostLast && req.GetNumber() != math.MaxUint64:
		return status.Errorf(codes.InvalidArgument, "number: at most %d of the last flows, or all: use since for more", mostLast)
	}
	return nil
}

// nodes sends which nodes the flows are from, and which cannot report at the moment, to a caller that may read all namespaces.
func (a *answer) nodes(ctx context.Context, reader Reader) error {
	nodes, err := reader.Nodes(ctx)
	if isForbidden(err) {
		return nil
	}
	if err != nil {
		return err
	}
	connected, away := byState(nodes)
	for _, n := range []struct {
		state relaypb.NodeState
		names []string
	}{{relaypb.NodeState_NODE_CONNECTED, connected}, {relaypb.NodeState_NODE_UNAVAILABLE, away}} {
		if len(n.names) == 0 {
			continue
		}
		err := a.stream.Send(&observerpb.GetFlowsResponse{
			Time: timestamppb.New(a.began),
			ResponseTypes: &observerpb.GetFlowsResponse_NodeStatus{
				NodeStatus: &relaypb.NodeStatusEvent{StateChange: n.state, NodeNames: n.names},
			},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// stored sends the flows that the observer has: the oldest first, also if only the last ones are asked for.
func (a *answer) stored(ctx context.Context, reader Reader) error {
	q := Query{Since: a.since}
	if a.req.GetUntil() != nil {
		q.Until = a.req.GetUntil().AsTime()
	}
	number := a.req.GetNumber()
	if number == math.MaxUint64 {
		number = 0
	} else if number == 0 && a.req.GetFollow() && a.req.GetSince() == nil {
		return nil
	}
	q.Newest = number > 0 && !a.req.GetFirst()
	var last []*observerapi.Flow
	var sent uint64
	var failed error
	coverage, err := reader.Flows(ctx, q, func(f *observerapi.Flow) bool {
		if a.show(f) == nil {
			return true
		}
		sent++
		if q.Newest {
			last = append(last, f)
		} else {
			failed = a.send(f)
		}
		return failed == nil && (number == 0 || sent < number)
	})
	if err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	slices.Reverse(last)
	for _, f := range last {
		if err := a.send(f); err != nil {
			return err
		}
	}
	for i := range coverage.Losses {
		a.losses.add(&coverage.Losses[i])
	}
	from := a.since
	if len(last) > 0 && uint64(len(last)) == number && last[0].Last.After(from) {
		from = last[0].Last // the client asked for no earlier ones
	}
	if err := a.gaps(&coverage, from); err != nil {
		return err
	}
	return a.sendLosses()
}

// gaps sends what is missing since a time and cannot be counted, as errors of nodes: the hubble command shows their messages.
func (a *answer) gaps(c *observerapi.Coverage, from time.Time) error {
	var errs []*relaypb.NodeStatusEvent
	if a.req.GetSince() != nil && c.CompleteSince.After(from) {
		errs = append(errs, &relaypb.NodeStatusEvent{Message: "the observer has all flows since " + c.CompleteSince.UTC().Format(time.RFC3339)})
	}
	by, left := map[string]*relaypb.NodeStatusEvent{}, 0
	for i := range c.Losses {
		l := &c.Losses[i]
		if !isUncounted(l) || l.Last.Before(from) {
			continue
		}
		// A node that does not report is UNAVAILABLE, too, unless it reports by now.
		text := fmt.Sprintf("flows between %s and %s are missing (%s)", l.First.UTC().Format(time.RFC3339), l.Last.UTC().Format(time.RFC3339), l.Reason)
		if by[text] == nil {
			if len(errs) == maxGaps {
				left++
				continue
			}
			by[text] = &relaypb.NodeStatusEvent{Message: text}
			errs = append(errs, by[text])
		}
		if l.Node != "" {
			by[text].NodeNames = append(by[text].NodeNames, l.Node)
		}
	}
	if left > 0 {
		errs = append(errs, &relaypb.NodeStatusEvent{Message: fmt.Sprintf("flows of %d more times are missing: ask for less time", left)})
	}
	for _, e := range errs {
		e.StateChange = relaypb.NodeState_NODE_ERROR
		if err := a.stream.Send(&observerpb.GetFlowsResponse{
			Time: timestamppb.New(a.began), ResponseTypes: &observerpb.GetFlowsResponse_NodeStatus{NodeStatus: e},
		}); err != nil {
			return err
		}
	}
	return nil
}

// follow sends what arrives.
func (a *answer) follow(ctx context.Context, arrivals <-chan Arrival) error {
	tick := time.NewTicker(lossInterval)
	defer tick.Stop()
	for {
		select {
		case arrival, ok := <-arrivals:
			if !ok {
				if err := ctx.Err(); err != nil {
					return status.FromContextError(err).Err()
				}
				return status.Error(codes.Unavailable, "the observer is ending: try again")
			}
			if arrival.Loss != nil {
				a.losses.add(arrival.Loss)
			}
			if f := arrival.Flow; f != nil && !f.Last.Before(a.since) && !a.shown.Contains(f) {
				if err := a.send(f); err != nil {
					return err
				}
			}
		case <-tick.C:
			if err := a.sendLosses(); err != nil {
				return err
			}
			if a.now().Sub(a.began) > pairing.Overlap {
				a.shown = nil // what arrives from now on was not stored when the answer began
			}
		}
	}
}

// show returns the form of a flow that passes the filters; nil: none does.
func (a *answer) show(f *observerapi.Flow) *flowpb.Flow { return a.filters.show(views(f)) }

// send sends a flow if it passes the filters.
func (a *answer) send(f *observerapi.Flow) error {
	out := a.show(f)
	if out == nil {
		return nil
	}
	if a.req.GetFollow() {
		a.shown.Add(f, a.began)
	}
	return a.stream.Send(&observerpb.GetFlowsResponse{
		NodeName:      out.GetNodeName(),
		Time:          out.GetTime(),
		ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: a.mask.apply(out)},
	})
}

func (a *answer) sendLosses() error {
	e := a.losses.take()
	if e == nil {
		return nil
	}
	return a.stream.Send(&observerpb.GetFlowsResponse{
		Time: timestamppb.New(a.now()), ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: e},
	})
}
