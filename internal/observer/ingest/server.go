package ingest

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/observer/directory"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/streamserver"
)

const (
	// maxStreams is the number of streams in total: one of each node.
	maxStreams = 5000
	// perSource is the number of connections of one address.
	perSource = 8
	// bufferSize of each connection, twice.
	bufferSize = 8 << 10
	// connectTime is how long a caller may take for its handshake.
	connectTime = 5 * time.Second
	// A connection that does not answer within pingTime and pingTimeout ends.
	pingTime, pingTimeout = 20 * time.Second, 10 * time.Second
	// stopTime limits an orderly end.
	stopTime = 2 * time.Second
	// Records of one node per second, and at once. Those beyond wait in the agent.
	recordRate, recordBurst = 2000, 40_000
	// maxRecords of one push.
	maxRecords = 20_000
)

// Options of a Server.
type Options struct {
	// Flag that has the address, for errors.
	Flag, Address string
	Certificate   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Expires is when the certificate does, for a metric; the zero time while there is none.
	Expires       func() time.Time
	Authenticator *streamserver.Authenticator
	Directory     *directory.Directory
	Store         store.Store
	// Stored is called with batches after they are stored, or were stored already.
	Stored func([]store.Batch)
	// Patience is how long a push waits for the names of new pods.
	Patience time.Duration
	Registry prometheus.Registerer
	Log      logr.Logger
}

// Server serves flow.Flows. It implements the manager's Runnable.
type Server struct {
	flow.UnimplementedFlowsServer
	options   Options
	listener  net.Listener
	metrics   *metrics
	writer    *writer
	decisions decisions
	clocks    clocks

	mu      sync.Mutex
	agents  map[string]*agent // by node
	opening int
}

// agent is a connected agent.
type agent struct {
	since      time.Time
	translator translator
	questions  questions
	cancel     context.CancelCauseFunc
	ended      chan struct{}
}

// Agent is a node whose agent is connected.
type Agent struct {
	Node  string
	Since time.Time
	// ClockAhead is how far the node's clock is before the observer's.
	ClockAhead time.Duration
}

var (
	errReplaced = errors.New("another stream of the node has opened")
	errStopping = errors.New("the observer stops")
	errExpired  = errors.New("the token has expired")
)

// New listens on the address.
func New(o Options) (*Server, error) {
	m, err := newMetrics(o)
	if err != nil {
		return nil, err
	}
	l, err := httpserver.Listen(o.Address, httpserver.Limits{Connections: maxStreams, PerSource: perSource})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s=%s; set another address: %w", o.Flag, o.Address, err)
	}
	return &Server{options: o, listener: l, metrics: m, writer: newWriter(o.Store, o.Stored, m, o.Log), agents: map[string]*agent{}}, nil
}

// NeedLeaderElection is false: each replica gets all records.
func (s *Server) NeedLeaderElection() bool { return false }

// Addr is the address on which the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Start serves until the context is done.
func (s *Server) Start(ctx context.Context) error {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.options.Certificate})),
		grpc.MaxRecvMsgSize(flow.MaxMessageSize),
		grpc.MaxConcurrentStreams(2),
		grpc.MaxHeaderListSize(2*streamserver.MaxToken),
		grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize),
		grpc.ConnectionTimeout(connectTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: connectTime, Time: pingTime, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	)
	flow.RegisterFlowsServer(server, s)
	writing, stopWriting := context.WithCancel(context.WithoutCancel(ctx)) // after the last push
	var group sync.WaitGroup
	group.Go(func() { s.writer.run(writing) })
	group.Go(func() {
		<-ctx.Done()
		s.endAll()
		timer := time.AfterFunc(stopTime, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
		stopWriting()
	})
	err := server.Serve(s.listener)
	if ctx.Err() == nil {
		stopWriting()
		return fmt.Errorf("serve the agents: %w", err)
	}
	group.Wait()
	return nil
}

// Push serves one stream.
func (s *Server) Push(conn grpc.BidiStreamingServer[flow.PushRequest, flow.PushResponse]) error {
	id, refusal := s.admit(conn.Context())
	if refusal != "" {
		s.metrics.refused.WithLabelValues(string(refusal)).Inc()
		return refusal.Status()
	}
	ctx, cancel := context.WithCancelCause(conn.Context())
	defer cancel(nil)
	a := s.open(id, conn, cancel)
	defer s.close(id.Node, a)
	expiry := time.AfterFunc(time.Until(id.Expires), func() { cancel(errExpired) })
	defer expiry.Stop()
	result := make(chan error, 1)
	go func() {
		defer close(a.ended)
		result <- s.receive(ctx, conn, a)
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done(): // receive ends when this function has returned
		return ending(context.Cause(ctx))
	}
}

func ending(cause error) error {
	switch {
	case errors.Is(cause, errExpired):
		return status.Error(codes.Unauthenticated, cause.Error())
	case errors.Is(cause, errReplaced):
		return status.Error(codes.AlreadyExists, cause.Error())
	case errors.Is(cause, errStopping):
		return status.Error(codes.Unavailable, cause.Error())
	}
	return status.FromContextError(cause).Err()
}

// admit returns who calls, and counts the stream as opening.
func (s *Server) admit(ctx context.Context) (streamserver.Identity, streamserver.Refusal) {
	s.mu.Lock()
	if len(s.agents)+s.opening >= maxStreams {
		s.mu.Unlock()
		return streamserver.Identity{}, streamserver.TooManyStreams
	}
	s.opening++
	s.mu.Unlock()
	id, refusal := s.options.Authenticator.Authenticate(ctx, streamserver.TokenOf(ctx), streamserver.SourceOf(ctx))
	if refusal != "" {
		s.mu.Lock()
		s.opening--
		s.mu.Unlock()
	}
	return id, refusal
}

// open makes a stream that of its node. One that the node has ends first, so that pushes do not overlap.
func (s *Server) open(id streamserver.Identity, conn grpc.BidiStreamingServer[flow.PushRequest, flow.PushResponse], cancel context.CancelCauseFunc) *agent {
	a := &agent{
		since: time.Now(), cancel: cancel, ended: make(chan struct{}), questions: newQuestions(conn),
		translator: newTranslator(id.Node, s.options.Directory, &s.decisions, s.clocks.of(id.Node)),
	}
	s.mu.Lock()
	s.opening--
	old := s.agents[id.Node]
	s.agents[id.Node] = a
	s.metrics.agents.Set(float64(len(s.agents)))
	s.mu.Unlock()
	if old != nil {
		old.cancel(errReplaced)
		<-old.ended
		a.translator.distinct, a.translator.cleared = old.translator.distinct, old.translator.cleared
	}
	return a
}

func (s *Server) close(node string, a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.agents[node] == a {
		delete(s.agents, node)
	}
	s.metrics.agents.Set(float64(len(s.agents)))
}

func (s *Server) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.agents {
		a.cancel(errStopping)
	}
}

// Agents returns the agents that are connected, by node.
func (s *Server) Agents() []Agent {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Agent, 0, len(s.agents))
	for node, a := range s.agents {
		out = append(out, Agent{node, a.since, a.translator.clock.ahead()})
	}
	slices.SortFunc(out, func(a, b Agent) int { return cmp.Compare(a.Node, b.Node) })
	return out
}

// receive stores what the agent pushes, one push after another.
func (s *Server) receive(ctx context.Context, conn grpc.BidiStreamingServer[flow.PushRequest, flow.PushResponse], a *agent) error {
	limiter := rate.NewLimiter(recordRate, recordBurst)
	for {
		request, err := conn.Recv()
		if err != nil {
			return err
		}
		if request.Report != nil {
			if err := limiter.Wait(ctx); err != nil {
				return status.Error(codes.ResourceExhausted, err.Error())
			}
			a.questions.answered(request.Report)
			continue
		}
		if isOfLaterVersion(request) {
			if err := limiter.Wait(ctx); err != nil {
				return status.Error(codes.ResourceExhausted, err.Error())
			}
			continue
		}
		if request.Generation == "" || len(request.Generation) > maxWord || request.Sequence == 0 {
			return status.Error(codes.InvalidArgument, "a push needs a generation of at most 64 bytes and a sequence from 1 on")
		}
		if len(request.Records) > maxRecords || len(request.Losses) > maxRecords {
			return status.Errorf(codes.InvalidArgument, "a push has at most %d records", maxRecords)
		}
		if !a.translator.isDistinct("generation " + request.Generation) {
			return status.Error(codes.ResourceExhausted, "too many generations")
		}
		received := time.Now()
		if err := limiter.WaitN(ctx, len(request.Records)+1); err != nil {
			return status.Error(codes.ResourceExhausted, err.Error())
		}
		a.translator.read(request.Sent, received)
		s.await(ctx, &a.translator, request, received)
		if slices.ContainsFunc(request.Losses, func(l *flow.Loss) bool { return l.GetReason() == reasonRestart }) {
			if a.translator.heard, err = s.heard(ctx, a.translator.node); err != nil {
				return status.Error(codes.Unavailable, "cannot read the store at the moment")
			}
		}
		batch := a.translator.batch(request, received)
		for _, l := range batch.Losses {
			s.metrics.lost.WithLabelValues(l.Reason).Add(float64(l.Packets))
		}
		if err := s.writer.put(ctx, batch); err != nil {
			return status.Error(codes.Unavailable, "cannot store flows at the moment")
		}
		if err := a.questions.send(&flow.PushResponse{Generation: request.Generation, Sequence: request.Sequence}); err != nil {
			return err
		}
	}
}

// isOfLaterVersion reports whether a message has nothing but fields that this version does not have. It needs no confirmation: it is no batch.
func isOfLaterVersion(r *flow.PushRequest) bool {
	return r.Generation == "" && r.Sequence == 0 && len(r.ProtoReflect().GetUnknown()) > 0
}

// heard is when a node has pushed last; the zero time if there is no such push in the store.
func (s *Server) heard(ctx context.Context, node string) (time.Time, error) {
	nodes, err := s.options.Store.Nodes(ctx)
	if err != nil {
		return time.Time{}, err
	}
	for _, n := range nodes {
		if n.Name == node {
			return n.Last, nil
		}
	}
	return time.Time{}, nil
}

// await waits a short time for the names of pods that are new.
func (s *Server) await(ctx context.Context, t *translator, request *flow.PushRequest, received time.Time) {
	patience := time.NewTimer(s.options.Patience)
	defer patience.Stop()
	for {
		changed := t.directory.Changed()
		if !slices.ContainsFunc(request.Records, func(r *flow.Record) bool { return t.isUnnamed(r, received) }) {
			return
		}
		select {
		case <-changed:
		case <-patience.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Cluster tells the authenticator what the directory knows of the agents.
type Cluster struct {
	Directory *directory.Directory
	Namespace string
}

// IsAgent reports whether a pod of the agents with this UID runs on the node.
func (c Cluster) IsAgent(node, uid string) bool {
	return c.Directory.IsPod(types.UID(uid), node, c.Namespace, stream.AgentServiceAccount)
}

// IsNodeAddress reports whether the node has the address.
func (c Cluster) IsNodeAddress(node string, addr netip.Addr) bool {
	return c.Directory.IsNodeAddress(node, addr)
}
