package ui

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// bundle is the page, built by `make ui`.
//
//go:embed dist
var bundle embed.FS

// contentSecurityPolicy lets the page run its own script and ask its own server, and nothing else.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; worker-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// kept is how long a live cluster's answer is used before the cluster is read again.
const kept = 15 * time.Second

// mostUploaded limits the manifests of a question, in bytes.
const mostUploaded = 8 << 20

// Options of a server.
type Options struct {
	// Name of the cluster or of the manifests, for the header of the page.
	Name string
	// Live is set where Read reads a cluster, which changes; otherwise it is read once.
	Live bool
	// Read the cluster.
	Read func(context.Context) (*model.Cluster, error)
	// Edges asks an observer for the flows of a time until now, summed up by workload; nil where there is no observer.
	Edges func(context.Context, time.Duration) (*observerapi.FlowList, error)
	// Parse manifests that a user drops on the page.
	Parse func(text []byte) (*model.Cluster, error)
}

// Server answers a browser.
type Server struct {
	options  Options
	listener net.Listener
	session  *session

	mu   sync.Mutex
	last *snapshot
	read time.Time
}

// Listen on a loopback port; 0 is a free one.
func Listen(ctx context.Context, port uint16, o Options) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return nil, fmt.Errorf("listen for the browser (give another --port): %w", err)
	}
	_, text, _ := net.SplitHostPort(l.Addr().String())
	return &Server{options: o, listener: l, session: newSession(text)}, nil
}

// URL that opens the page, once.
func (s *Server) URL() string {
	return fmt.Sprintf("http://%s/open?secret=%s", s.listener.Addr(), s.session.secret)
}

// Serve until ctx ends.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler: s.Handler(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: time.Minute, IdleTimeout: 2 * time.Minute,
		MaxHeaderBytes: 16 << 10, BaseContext: func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// Handler of all requests.
func (s *Server) Handler() http.Handler {
	files, _ := fs.Sub(bundle, "dist") // the folder is embedded
	mux := http.NewServeMux()
	mux.HandleFunc("GET /open", s.session.open)
	mux.Handle("GET /", s.known(http.FileServerFS(files)))
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /api/graph":    s.graph,
		"GET /api/edge":     s.edge,
		"GET /api/policies": s.policies,
		"GET /api/policy":   s.policy,
		"POST /api/whatif":  s.whatIf,
	} {
		mux.Handle(pattern, s.known(s.json(answer)))
	}
	return s.checked(mux)
}

// checked answers only what comes from the page itself: a name that leads to this address (DNS rebinding) and other sites' pages get nothing.
func (s *Server) checked(next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	hosts := map[string]bool{"127.0.0.1:" + port: true, "localhost:" + port: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", contentSecurityPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		origin := r.Header.Get("Origin")
		site := r.Header.Get("Sec-Fetch-Site")
		switch {
		case !hosts[r.Host]:
			http.Error(w, "This server answers to its own address only.", http.StatusForbidden)
		case origin != "" && origin != "http://"+r.Host, site != "" && site != "same-origin" && site != "none":
			http.Error(w, "This request comes from another site.", http.StatusForbidden)
		case r.Method == http.MethodPost && origin == "":
			http.Error(w, "This request does not say where it comes from (Origin).", http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// known answers the browser that has the cookie.
func (s *Server) known(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.session.holds(r) {
			http.Error(w, "This browser is not known here. Open the address that kubectl kidoban ui printed.", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// failure is an answer with an error, for a person.
type failure struct {
	status int
	text   string
}

func (f failure) Error() string { return f.text }

func notFound(format string, a ...any) error {
	return failure{http.StatusNotFound, fmt.Sprintf(format, a...)}
}

func invalid(err error) error { return failure{http.StatusBadRequest, err.Error()} }

// json writes an answer, or an object with the error.
func (s *Server) json(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, mostUploaded)
		out, err := answer(r)
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			status := http.StatusInternalServerError
			if f := (failure{}); errors.As(err, &f) {
				status = f.status
			}
			w.WriteHeader(status)
			out = map[string]string{"error": strings.TrimSpace(err.Error())}
		}
		_ = json.NewEncoder(w).Encode(out) // a browser that has gone needs no answer
	})
}

// snapshot of the cluster: the last one, if it is new enough.
func (s *Server) snapshot(ctx context.Context) (*snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.last != nil && (!s.options.Live || time.Since(s.read) < kept) {
		return s.last, nil
	}
	c, err := s.options.Read(ctx)
	if err != nil {
		return nil, err
	}
	s.last, s.read = newSnapshot(c), time.Now()
	return s.last, nil
}
