package streamserver

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/stream"
)

const (
	// maxStreams is the number of streams in total: one of each node.
	maxStreams = 5000
	// perSource is the number of connections of one address.
	perSource = 8
	// bufferSize of each connection, twice. gRPC's own are 32 KiB each.
	bufferSize = 4 << 10
	// helloTime is how long an agent may take for its first message.
	helloTime = 5 * time.Second
	// A connection that does not answer within pingTime and pingTimeout ends.
	pingTime, pingTimeout = 20 * time.Second, 10 * time.Second
	// stopTime limits an orderly end.
	stopTime = time.Second
)

// Handler takes what agents send. Its methods must not block for long: those of one session are called one after
// another.
type Handler interface {
	Connected(*Session)
	Received(*Session, *stream.AgentMessage)
	// Ended is called last. The node may have a newer session by then.
	Ended(*Session)
}

// Options of a Server.
type Options struct {
	// Flag that has the address, for errors.
	Flag, Address string
	Certificate   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Authenticator *Authenticator
	Handler       Handler
	Registry      prometheus.Registerer
	Log           logr.Logger
}

// Server serves the stream. It implements the manager's Runnable.
type Server struct {
	stream.UnimplementedStreamServer
	options  Options
	listener net.Listener
	metrics  *metrics

	mu       sync.Mutex
	sessions map[string]*Session // by node
	opening  int

	limiters *Limiters[string] // of messages, by node
}

// New listens on the address.
func New(o Options) (*Server, error) {
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	l, err := httpserver.Listen(o.Address, httpserver.Limits{Connections: maxStreams, PerSource: perSource})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s=%s; set another address: %w", o.Flag, o.Address, err)
	}
	return &Server{options: o, listener: l, metrics: m, sessions: map[string]*Session{}, limiters: NewLimiters[string](messageRate, messageBurst, 0)}, nil
}

// NeedLeaderElection is false: followers take announcements, too.
func (s *Server) NeedLeaderElection() bool { return false }

// Addr is the address on which the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Start serves until the context is done.
func (s *Server) Start(ctx context.Context) error {
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.options.Certificate})),
		grpc.MaxRecvMsgSize(stream.MaxMessageSize),
		grpc.MaxConcurrentStreams(2),
		grpc.MaxHeaderListSize(2*MaxToken),
		grpc.ReadBufferSize(bufferSize), grpc.WriteBufferSize(bufferSize),
		grpc.ConnectionTimeout(helloTime),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: helloTime, Time: pingTime, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	)
	stream.RegisterStreamServer(server, s)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		s.endAll()
		timer := time.AfterFunc(stopTime, server.Stop)
		defer timer.Stop()
		server.GracefulStop()
	}()
	err := server.Serve(s.listener)
	if ctx.Err() == nil {
		return fmt.Errorf("serve the agents' stream: %w", err)
	}
	<-stopped
	return nil
}

// Connect serves one stream.
func (s *Server) Connect(conn grpc.BidiStreamingServer[stream.AgentMessage, stream.ControllerMessage]) error {
	session, refusal := s.open(conn)
	if refusal != "" {
		s.metrics.refused.WithLabelValues(string(refusal)).Inc()
		return refusal.Status()
	}
	expiry := time.AfterFunc(time.Until(session.Expires), func() { session.end(EndExpired) })
	defer expiry.Stop()
	s.options.Handler.Connected(session)
	go session.send()
	go s.receive(session) // blocks until the stream's context ends, which is after this function returns
	select {
	case <-session.ended:
	case <-conn.Context().Done():
		session.end("")
	}
	s.close(session)
	why := session.why()
	if why != "" {
		s.metrics.ended.WithLabelValues(string(why)).Inc()
		s.options.Log.V(1).Info("Ended the stream of an agent", "node", session.Node, "reason", why)
	}
	return why.status()
}

// open authenticates a caller and waits for its first message.
func (s *Server) open(conn grpc.BidiStreamingServer[stream.AgentMessage, stream.ControllerMessage]) (*Session, Refusal) {
	if !s.reserve() {
		return nil, TooManyStreams
	}
	opened := false
	defer func() {
		if !opened {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.opening--
		}
	}()
	ctx := conn.Context()
	id, refusal := s.options.Authenticator.Authenticate(ctx, TokenOf(ctx), SourceOf(ctx))
	if refusal != "" {
		return nil, refusal
	}
	hello, ok := receiveHello(conn)
	if !ok {
		return nil, BadHello
	}
	session := &Session{
		Identity: id, Version: hello.GetVersion(), conn: conn, queue: make(chan *stream.ControllerMessage, maxQueued),
		ended: make(chan struct{}),
	}
	s.mu.Lock()
	session.limiter = s.limiterOf(id.Node)
	old := s.sessions[id.Node]
	s.sessions[id.Node] = session
	s.opening--
	opened = true
	s.metrics.streams.Set(float64(len(s.sessions)))
	s.mu.Unlock()
	if old != nil {
		old.end(EndReplaced)
	}
	if !s.options.Authenticator.Cluster.IsAgent(id.Node, id.Pod) { // deleted since it was authenticated
		session.end(EndPodDeleted)
	}
	return session, ""
}

// limiterOf returns the limiter of a node's messages. A new stream goes on with the one of the stream before, as long as
// that has not recovered. The caller holds mu.
func (s *Server) limiterOf(node string) *rate.Limiter {
	s.limiters.Forget(time.Now(), func(node string) bool { return s.sessions[node] != nil })
	return s.limiters.Of(node)
}

// reserve counts a stream that is about to open, if there is room for one.
func (s *Server) reserve() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sessions)+s.opening >= maxStreams {
		return false
	}
	s.opening++
	return true
}

// receiveHello waits for the first message.
func receiveHello(conn grpc.BidiStreamingServer[stream.AgentMessage, stream.ControllerMessage]) (*stream.Hello, bool) {
	first := make(chan *stream.AgentMessage, 1)
	go func() {
		m, err := conn.Recv()
		if err != nil {
			m = nil
		}
		first <- m
	}()
	select {
	case m := <-first:
		return m.GetHello(), m.GetHello() != nil
	case <-time.After(helloTime):
		return nil, false
	}
}

// receive passes on the agent's messages until the stream ends.
func (s *Server) receive(session *Session) {
	for {
		m, err := session.conn.Recv()
		if err != nil || session.limiter.Wait(session.conn.Context()) != nil {
			session.end("")
			return
		}
		s.metrics.received.Inc()
		if !session.while(func() { s.options.Handler.Received(session, m) }) {
			return
		}
	}
}

// close removes a session, after its last message was passed on.
func (s *Server) close(session *Session) {
	s.mu.Lock()
	if s.sessions[session.Node] == session {
		delete(s.sessions, session.Node)
	}
	s.metrics.streams.Set(float64(len(s.sessions)))
	s.mu.Unlock()
	session.receiving.Lock()
	defer session.receiving.Unlock()
	s.options.Handler.Ended(session)
}

// EndPod ends the stream of a pod that was deleted, and forgets its token.
func (s *Server) EndPod(node, pod string) {
	s.options.Authenticator.Forget(pod)
	s.mu.Lock()
	session := s.sessions[node]
	s.mu.Unlock()
	if session != nil && session.Pod == pod {
		session.end(EndPodDeleted)
	}
}

// Session returns the stream of a node; nil if there is none.
func (s *Server) Session(node string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[node]
}

// Broadcast queues a message for every agent.
func (s *Server) Broadcast(m *stream.ControllerMessage) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range s.sessions {
		session.Send(m)
	}
}

func (s *Server) endAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, session := range s.sessions {
		session.end(EndShutdown)
	}
}

// TokenOf returns the bearer token of a call; empty if there is none.
func TokenOf(ctx context.Context) string {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) != 1 {
		return ""
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// SourceOf returns the address that a call comes from.
func SourceOf(ctx context.Context) netip.Addr {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return netip.Addr{}
	}
	from, err := netip.ParseAddrPort(p.Addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return from.Addr().Unmap().WithZone("")
}

// Status is what a caller gets to see.
func (r Refusal) Status() error {
	code := codes.Unauthenticated
	switch r {
	case TooManyReviews, TooManyStreams:
		code = codes.ResourceExhausted
	case ReviewFailed, UnknownPod: // may be different soon
		code = codes.Unavailable
	case BadHello:
		code = codes.InvalidArgument
	case NoToken, Malformed, WrongAudience, WrongServiceAccount, Expired, NotBound, Rejected:
	}
	return status.Error(code, string(r))
}

func (e Ending) status() error {
	switch e {
	case EndExpired, EndPodDeleted:
		return status.Error(codes.Unauthenticated, string(e))
	case EndReplaced:
		return status.Error(codes.AlreadyExists, string(e))
	case EndSlow:
		return status.Error(codes.ResourceExhausted, string(e))
	case EndShutdown:
		return status.Error(codes.Unavailable, string(e))
	}
	return nil
}
