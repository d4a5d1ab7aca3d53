package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/replicas"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/version"
)

const (
	// greetTimeout is how long a replica may take to accept a connection and say whether it leads.
	greetTimeout = 10 * time.Second
	// spread is how long agents take to connect again after all of them lost a replica.
	spread = 2 * time.Second
	// The pause between attempts grows from retryFirst to retryMost.
	retryFirst = 250 * time.Millisecond
	retryMost  = 3 * time.Second
)

// Run keeps the streams until the context is done.
func (c *Client) Run(ctx context.Context, h Handler) {
	replicas.Follow(ctx, c.opts.Replicas, func(ctx context.Context, address string) { c.follow(ctx, address, h) })
}

// follow keeps a stream to one replica until the context is done.
func (c *Client) follow(ctx context.Context, address string, h Handler) {
	log := c.opts.Log.WithValues("replica", address)
	logged := false
	pause := retryFirst
	for ctx.Err() == nil {
		greeted, err := c.connect(ctx, address, h)
		if ctx.Err() != nil {
			return
		}
		c.metrics.failures.WithLabelValues(status.Code(err).String()).Inc()
		switch {
		case greeted && status.Code(err) == codes.Unauthenticated: // the token has expired, and there is a newer one
			log.V(1).Info("The stream's token has expired; connecting again")
			pause = retryFirst
		case greeted && status.Code(err) == codes.AlreadyExists:
			log.Info("Another agent has connected for this node; connecting again later")
			pause = retryMost
		case greeted:
			log.Info("Lost the stream to the controller; new pods' addresses are not announced until it is connected again", "reason", err.Error())
			logged, pause = true, retryFirst
			sleep(ctx, rand.N(spread))
			continue
		case !logged:
			log.Info("Cannot connect to the controller; retrying. New pods' addresses are not announced to it", "reason", err.Error())
			logged = true
		}
		sleep(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, retryMost)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// connect makes one connection and keeps it while it lasts. greeted is whether the replica accepted it.
func (c *Client) connect(ctx context.Context, address string, h Handler) (greeted bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	tooLate := time.AfterFunc(greetTimeout, func() { cancel(errGreet) })
	defer tooLate.Stop()
	defer func() {
		if errors.Is(context.Cause(ctx), errGreet) {
			err = errGreet
		}
	}()

	access := replicas.Access{Authority: c.opts.Authority, ServerName: stream.ServerName, TokenFile: c.opts.TokenFile}
	conn, authorized, err := access.Connect(ctx, address, grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(stream.MaxMessageSize)))
	if err != nil {
		return false, err
	}
	defer func() { _ = conn.Close() }()
	s, err := stream.NewStreamClient(conn).Connect(authorized)
	if err != nil {
		return false, err
	}
	hello := &stream.AgentMessage{Message: &stream.AgentMessage_Hello{Hello: &stream.Hello{Version: version.String()}}}
	if err := s.Send(hello); err != nil {
		_, err = s.Recv() // has the reason
		return false, err
	}
	o := c.open()
	defer c.close(o)
	for {
		m, err := s.Recv()
		if err != nil {
			return greeted, err
		}
		if role := m.GetRole(); role != nil {
			if tooLate.Stop(); !greeted {
				greeted = true
				c.opts.Log.Info("Connected to the controller", "replica", address, "leads", role.GetLeader())
				go c.send(ctx, s, o)
			}
			c.setLeader(o, role.GetLeader())
			continue
		}
		c.pass(m, o, h)
	}
}

var errGreet = status.Error(codes.DeadlineExceeded, "the replica does not answer")

// send sends what there is, until the context is done or the stream has ended.
func (c *Client) send(ctx context.Context, s stream.Stream_ConnectClient, o *outbox) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.woken:
		}
		for _, m := range c.take(o) {
			if s.Send(m) != nil {
				return // Recv has the reason
			}
		}
	}
}

func (c *Client) pass(m *stream.ControllerMessage, o *outbox, h Handler) {
	switch m := m.GetMessage().(type) {
	case *stream.ControllerMessage_Published:
		h.Published(m.Published)
	case *stream.ControllerMessage_Confirmed:
		h.Confirmed(m.Confirmed)
	case *stream.ControllerMessage_Refused:
		h.Refused(m.Refused)
	case *stream.ControllerMessage_AskInForce:
		id := m.AskInForce.GetId()
		h.AskInForce(m.AskInForce, func() { c.answer(o, id) })
	}
}

func (c *Client) setLeader(o *outbox, leads bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if leads {
		c.leaders[o] = struct{}{}
	} else {
		delete(c.leaders, o)
	}
	c.countStreams()
}

// countStreams sets the metric. The caller holds mu.
func (c *Client) countStreams() {
	c.metrics.streams.WithLabelValues("leader").Set(float64(len(c.leaders)))
	c.metrics.streams.WithLabelValues("follower").Set(float64(len(c.outboxes) - len(c.leaders)))
}
