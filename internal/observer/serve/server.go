package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/hubble"
)

const (
	headerTime   = 5 * time.Second
	idleTime     = time.Minute
	shutdownTime = 3 * time.Second
	maxHeader    = 16 << 10
	// maxRequest is the size of the largest request of Hubble's API: its filters.
	maxRequest = 256 << 10
	// maxStreams of one connection.
	maxStreams = 16
	// A follower's connection that does not answer within these ends.
	pingTime, pingTimeout = 30 * time.Second, 15 * time.Second
)

// Options of a Server.
type Options struct {
	// Flag that has the address, for errors.
	Flag, Address string
	Certificate   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	Flows         *flows.Flows
	Agents        Agents
	Guard         *access.Guard
	Version       string
	Log           logr.Logger
	// Page makes the handler of a page for browsers from that of the API; it answers requests below PagePath, which ends with a slash. Nil: there is no
	// page.
	Page     func(api http.Handler) http.Handler
	PagePath string
}

// Server serves the API and Hubble's Observer API on one port. It implements the manager's Runnable.
type Server struct {
	options  Options
	listener net.Listener
}

// New listens on the address.
func New(o Options) (*Server, error) {
	l, err := httpserver.Listen(o.Address, httpserver.Limits{PerSource: 32})
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %s=%s; set another address: %w", o.Flag, o.Address, err)
	}
	return &Server{o, l}, nil
}

// NeedLeaderElection is false: each replica answers.
func (s *Server) NeedLeaderElection() bool { return false }

// Addr is the address on which the server listens.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Start serves until the context is done.
func (s *Server) Start(ctx context.Context) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	rpc := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest))
	hubble.Register(rpc, hubble.Options{Reader: s.hubbleReader, Version: s.options.Version, Now: time.Now})
	api := Handler(ctx, s.options.Flows, s.options.Agents, s.options.Guard)
	handler := split(rpc, api)
	if s.options.Page != nil {
		handler = below(s.options.PagePath, s.options.Page(api), handler)
	}
	server := &http.Server{
		Handler: handler, Protocols: protocols,
		TLSConfig:      &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.options.Certificate},
		MaxHeaderBytes: maxHeader, ReadHeaderTimeout: headerTime, IdleTimeout: idleTime,
		HTTP2:    &http.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingTime, PingTimeout: pingTimeout},
		ErrorLog: httpserver.ErrorLog(s.options.Log),
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-ctx.Done()
		until, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTime)
		defer cancel()
		if server.Shutdown(until) != nil {
			_ = server.Close()
		}
		rpc.Stop()
	}()
	if err := server.ServeTLS(s.listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve readers: %w", err)
	}
	<-stopped
	return nil
}

// below passes requests below a path to one handler, and the others to the next.
func below(path string, page, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path+"/", path) {
			page.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// split passes gRPC's requests to one handler, and those without a body to the other.
func split(rpc, api http.Handler) http.Handler {
	api = httpserver.WithoutBody(api)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			rpc.ServeHTTP(w, r)
		default:
			api.ServeHTTP(w, r)
		}
	})
}
