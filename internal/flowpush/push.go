package flowpush

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/replicas"
)

const (
	// confirmTimeout is how long a replica may take to confirm a batch.
	confirmTimeout = 30 * time.Second
	// The pause between attempts grows from retryFirst to retryMost.
	retryFirst = 500 * time.Millisecond
	retryMost  = 30 * time.Second
)

// pushStream is a stream to one replica. Send may wait while the replica reads nothing.
type pushStream interface {
	Send(*flow.PushRequest) error
	Recv() (*flow.PushResponse, error)
}

// connect opens a stream that ends with the context.
type connect func(ctx context.Context, address string) (pushStream, error)

// overGRPC connects to a replica.
func overGRPC(access *replicas.Access) connect {
	return func(ctx context.Context, address string) (pushStream, error) {
		conn, authorized, err := access.Connect(ctx, address)
		if err != nil {
			return nil, err
		}
		context.AfterFunc(ctx, func() { _ = conn.Close() })
		return flow.NewFlowsClient(conn).Push(authorized)
	}
}

// follow pushes to one replica until the context is done.
func (p *Pusher) follow(ctx context.Context, address string) {
	c := p.buffer.join()
	defer func() { p.buffer.leave(c, time.Now()) }()
	log := p.opts.Log.WithValues("replica", address)
	isLogged := false
	for pause := retryFirst; ctx.Err() == nil; pause = min(2*pause, retryMost) {
		confirmed, err := p.push(ctx, address, c)
		if ctx.Err() != nil {
			return
		}
		code := status.Code(err)
		p.metrics.failures.WithLabelValues(code.String()).Inc()
		if confirmed {
			isLogged, pause = false, retryFirst
		}
		if confirmed && code == codes.Unauthenticated {
			log.V(1).Info("The observer asks for the current token; connecting again")
			continue
		}
		if !isLogged {
			isLogged = true
			log.Info("Cannot push flow records to the observer; retrying. What does not fit into the buffer is lost and counted", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause/2 + rand.N(pause/2)):
		}
	}
}

// push makes one connection and pushes while it lasts. confirmed is whether the replica has confirmed anything on it.
func (p *Pusher) push(ctx context.Context, address string, c *cursor) (confirmed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := p.connect(ctx, address)
	if err != nil {
		return false, err
	}
	p.buffer.rewind(c)
	tooLate := time.AfterFunc(confirmTimeout, func() { cancel(errSilent) })
	defer tooLate.Stop()
	asked := make(chan uint64, maxAsked)
	go func() {
		if err := p.send(ctx, s, c, asked, tooLate); err != nil {
			cancel(err)
		}
	}()
	for {
		m, err := s.Recv()
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			return confirmed, err
		}
		if m.GetReport() != 0 {
			select {
			case asked <- m.GetReport():
			default:
			}
			continue
		}
		if m.GetGeneration() != p.generation {
			continue
		}
		if !confirmed {
			confirmed = true
			p.opts.Log.Info("Pushing flow records to the observer", "replica", address)
			p.metrics.streams.Inc()
			defer p.metrics.streams.Dec()
		}
		p.buffer.confirm(c, m.GetSequence())
		if tooLate.Stop(); p.buffer.awaits(c) {
			tooLate.Reset(confirmTimeout)
		}
	}
}

var errSilent = status.Error(codes.DeadlineExceeded, "the observer confirms nothing")

// send sends what there is, and what the replica asks for, until the context is done or the stream has ended. An error is the agent's own.
func (p *Pusher) send(ctx context.Context, s pushStream, c *cursor, asked <-chan uint64, tooLate *time.Timer) error {
	for {
		select {
		case number := <-asked: // also while there are batches
			if !p.sendReport(s, c, number, tooLate) {
				return nil
			}
			continue
		default:
		}
		r, err := p.buffer.take(c, time.Now())
		if err != nil {
			return err
		}
		if r == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-c.woken:
			case number := <-asked:
				if !p.sendReport(s, c, number, tooLate) {
					return nil
				}
			}
			continue
		}
		tooLate.Reset(confirmTimeout)
		if s.Send(r) != nil {
			return nil // Recv has the reason
		}
	}
}

// sendReport answers a question, and reports whether the stream goes on. A replica that does not read is given up as one that does not confirm.
func (p *Pusher) sendReport(s pushStream, c *cursor, number uint64, tooLate *time.Timer) bool {
	answer := p.report(number)
	tooLate.Reset(confirmTimeout)
	if s.Send(answer) != nil {
		return false
	}
	if !p.buffer.awaits(c) {
		tooLate.Stop()
	}
	return true
}
