package ui

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
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
	// Observer opens an answer of an observer (paths and queries as in internal/observerapi), which is read as it comes and ends with the context; nil
	// where there is no observer. An error is NoRights if the reader lacks the rights.
	Observer func(ctx context.Context, path string, query url.Values) (io.ReadCloser, error)
	// InForce asks the agents how far policies are in force; nil where there are no agents to ask.
	InForce func(context.Context) (*InForce, error)
	// Parse manifests that a user drops on the page.
	Parse func(text []byte) (*model.Cluster, error)
}

// Server answers a browser.
type Server struct {
	options  Options
	listener net.Listener
	session  *session
	// mounted is set in the observer's own process, which must not hold the flows of days in memory: it replays and recommends nothing.
	mounted bool

	mu   sync.Mutex
	last *snapshot
	read time.Time

	inForceMu sync.Mutex
	inForce   *InForce
	asked     time.Time
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
	mux := http.NewServeMux()
	mux.HandleFunc("GET /open", s.session.open)
	mux.Handle("GET /", s.known(page()))
	for pattern, handler := range s.api() {
		mux.Handle(pattern, s.known(handler))
	}
	return s.checked(mux)
}

// page is the bundle.
func page() http.Handler {
	files, _ := fs.Sub(bundle, "dist") // the folder is embedded
	return http.FileServerFS(files)
}

// api returns the handlers of the page's questions, by pattern.
func (s *Server) api() map[string]http.Handler {
	out := map[string]http.Handler{"GET /api/flows/live": http.HandlerFunc(s.live)}
	for pattern, answer := range map[string]func(*http.Request) (any, error){
		"GET /api/graph":    s.graph,
		"GET /api/edge":     s.edge,
		"GET /api/flows":    s.flows,
		"GET /api/hits":     s.hits,
		"GET /api/inforce":  s.whatIsInForce,
		"GET /api/policies": s.policies,
		"GET /api/policy":   s.policy,
		"POST /api/whatif":  s.whatIf,

		"GET /api/recommend": s.recommended,
		"POST /api/replay":   s.replayed,
	} {
		out[pattern] = s.json(answer)
	}
	if s.mounted {
		delete(out, "GET /api/recommend")
		delete(out, "POST /api/replay")
	}
	return out
}

// checked answers only what comes from the page itself: a name that leads to this address (DNS rebinding) and other sites' pages get nothing.
func (s *Server) checked(next http.Handler) http.Handler {
	_, port, _ := net.SplitHostPort(s.listener.Addr().String())
	hosts := map[string]bool{"127.0.0.1:" + port: true, "localhost:" + port: true}
	return fromPage(next, "http", func(host string) bool { return hosts[host] })
}

// fromPage answers what comes from a page at one of the hosts, with the headers that keep the page apart from other sites.
func fromPage(next http.Handler, scheme string, isOwn func(host string) bool) http.Handler {
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
		case !isOwn(r.Host):
			http.Error(w, "This server answers to its own address only.", http.StatusForbidden)
		case origin != "" && origin != scheme+"://"+r.Host, site != "" && site != "same-origin" && site != "none":
			http.Error(w, "This request comes from another site.", http.StatusForbidden)
		case r.Method != http.MethodGet && r.Method != http.MethodHead && origin == "":
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

// NoRights is an error of a reader who lacks the rights to see something.
type NoRights struct{ Err error }

func (e NoRights) Error() string { return e.Err.Error() }
func (e NoRights) Unwrap() error { return e.Err }

// Problem is an error as the page reads it.
type Problem struct {
	Error string `json:"error"`
	// Rights is set if the reader lacks the rights.
	Rights bool `json:"rights,omitempty"`
}

func problemOf(err error) Problem {
	noRights := NoRights{}
	return Problem{strings.TrimSpace(err.Error()), errors.As(err, &noRights)}
}

// json writes an answer, or an object with the error.
func (s *Server) json(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, mostUploaded)
		out, err := answer(r)
		if err != nil {
			answerError(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // a browser that has gone needs no answer
	})
}

// answerError writes the object with an error.
func answerError(w http.ResponseWriter, err error) {
	status, problem := http.StatusInternalServerError, problemOf(err)
	if problem.Rights {
		status = http.StatusForbidden
	}
	if f := (failure{}); errors.As(err, &f) {
		status = f.status
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(problem) // a browser that has gone needs no answer
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
