package serve

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// hubbleReader returns what the caller of Hubble's API may read.
func (s *Server) hubbleReader(ctx context.Context) (hubble.Reader, error) {
	token := ""
	if values := metadata.ValueFromIncomingContext(ctx, "authorization"); len(values) == 1 {
		token = TokenOf(values[0])
	}
	reader, err := s.options.Guard.Reader(ctx, token)
	if err != nil {
		return nil, rpcError(err)
	}
	return &hubbleReader{s.options.Flows, s.options.Guard, token, reader}, nil
}

func rpcError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, access.ErrToken):
		return status.Error(codes.Unauthenticated, access.ErrToken.Error())
	case errors.Is(err, access.ErrUnavailable):
		return status.Error(codes.Unavailable, access.ErrUnavailable.Error())
	case errors.Is(err, errForbidden):
		return status.Error(codes.PermissionDenied, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, "cannot read the store")
}

// hubbleReader is a hubble.Reader of one caller.
type hubbleReader struct {
	flows  *flows.Flows
	guard  *access.Guard
	token  string
	reader *access.Reader
}

func (h *hubbleReader) Flows(ctx context.Context, q hubble.Query, visit func(*observerapi.Flow) bool) (observerapi.Coverage, error) {
	view, err := access.NewView(ctx, h.reader)
	if err != nil {
		return observerapi.Coverage{}, rpcError(err)
	}
	c, err := h.flows.Scan(ctx, view, flows.Query{Since: q.Since, Until: q.Until, Newest: q.Newest}, visit)
	return c, rpcError(err)
}

func (h *hubbleReader) Subscribe(ctx context.Context) (<-chan hubble.Arrival, error) {
	view, err := access.NewView(ctx, h.reader)
	if err != nil {
		return nil, rpcError(err)
	}
	in, out := h.flows.Follow(ctx, view, flows.Filter{}), make(chan hubble.Arrival)
	go func() {
		defer close(out)
		send := func(a hubble.Arrival) bool {
			select {
			case out <- a:
				return true
			case <-ctx.Done():
				return false
			}
		}
		again := time.NewTicker(tokenTime)
		defer again.Stop()
		for {
			select {
			case <-again.C: // the token may have ended
				if _, err := h.guard.Reader(ctx, h.token); err != nil {
					return
				}
			case a, ok := <-in:
				if !ok {
					return
				}
				for i := range a.Losses {
					if !send(hubble.Arrival{Loss: &a.Losses[i]}) {
						return
					}
				}
				if a.Missed > 0 && !send(hubble.Arrival{Loss: &observerapi.Loss{Reason: hubble.LossReader, First: time.Now(), Last: time.Now(), Records: a.Missed}}) {
					return
				}
				if a.Flow != nil && !send(hubble.Arrival{Flow: a.Flow}) {
					return
				}
			}
		}
	}()
	return out, nil
}

// all returns an error unless the caller may read all namespaces, as it must for the same answers of the JSON API.
func (h *hubbleReader) all(ctx context.Context) error {
	view, err := access.NewView(ctx, h.reader)
	if err == nil && !view.All() {
		err = errForbidden
	}
	return err
}

func (h *hubbleReader) Nodes(ctx context.Context) ([]hubble.Node, error) {
	if err := h.all(ctx); err != nil {
		return nil, rpcError(err)
	}
	nodes, err := h.flows.Nodes(ctx)
	out := make([]hubble.Node, 0, len(nodes))
	for _, n := range nodes {
		out = append(out, hubble.Node{Name: n.Name, Connected: !n.Connected.IsZero(), Since: n.Connected})
	}
	return out, rpcError(err)
}

func (h *hubbleReader) Namespaces(ctx context.Context, since time.Time) ([]string, error) {
	view, err := access.NewView(ctx, h.reader)
	if err != nil {
		return nil, rpcError(err)
	}
	names, err := h.flows.Namespaces(ctx, view, since)
	return names, rpcError(err)
}

func (h *hubbleReader) Status(ctx context.Context) (hubble.Status, error) {
	if err := h.all(ctx); err != nil {
		return hubble.Status{}, rpcError(err)
	}
	s, err := h.flows.Status(ctx)
	return hubble.Status{Started: s.Started, Stored: uint64(s.Reports), Received: h.flows.Received(), PerSecond: s.PerSecond}, rpcError(err)
}
