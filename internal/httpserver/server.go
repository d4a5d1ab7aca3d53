package httpserver

import (
	"crypto/tls"
	"fmt"
	"log"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// What a client gets to send a header, to wait between two requests, and to take an answer.
const (
	headerTime = 5 * time.Second
	idleTime   = 15 * time.Second
	// WriteTime limits the time to take an answer. A handler that streams extends it for each part (http.ResponseController).
	WriteTime = 10 * time.Second
	// maxHeader is the size of a header, of which net/http adds 4 KiB to what it is given.
	maxHeader    = 8 << 10
	shutdownTime = 3 * time.Second
)

// Options of a server.
type Options struct {
	// Name of the server, for logs.
	Name string
	// Flag that has the address, for errors.
	Flag string
	// Address to listen on. "0" and "" stand for none.
	Address string
	Limits  Limits
	// Requests is how many requests the handler works on at a time; 0: as many as there are connections, for a handler that neither computes nor waits.
	Requests int
	Handler  http.Handler
	// TLS makes the server speak TLS.
	TLS *tls.Config
	// OnShutdown ends the streams that would hold up a shutdown; nil: there are none.
	OnShutdown func()
	Log        logr.Logger
}

// Add listens on the address and makes the manager serve there, whether it leads or not.
func Add(mgr manager.Manager, o Options) error {
	if o.Address == "0" || o.Address == "" {
		return nil
	}
	l, err := Listen(o.Address, o.Limits)
	if err != nil {
		return fmt.Errorf("cannot listen on %s=%s; set another address: %w", o.Flag, o.Address, err)
	}
	server := newServer(o)
	if o.TLS != nil {
		l = tls.NewListener(l, o.TLS)
	}
	patience := shutdownTime
	return mgr.Add(&manager.Server{Name: o.Name, Server: server, Listener: l, ShutdownTimeout: &patience})
}

func newServer(o Options) *http.Server {
	if o.Requests > 0 {
		o.Handler = bounded(o.Requests, o.Handler)
	}
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true) // a connection of HTTP/2 is many requests at once
	server := &http.Server{
		Handler:           WithoutBody(o.Handler),
		Protocols:         protocols,
		MaxHeaderBytes:    maxHeader - 4096,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		WriteTimeout:      WriteTime,
		ErrorLog:          ErrorLog(o.Log.WithValues("server", o.Name)),
	}
	if o.OnShutdown != nil {
		server.RegisterOnShutdown(o.OnShutdown)
	}
	return server
}

// WithoutBody answers requests that have a body itself: all that the servers do is answer.
func WithoutBody(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			w.Header().Set("Connection", "close") // or net/http reads the body
			http.Error(w, "requests have no body here", http.StatusRequestEntityTooLarge)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// bounded passes on so many requests at a time, and answers the others 503 at once.
func bounded(requests int, next http.Handler) http.Handler {
	slots := make(chan struct{}, requests)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			next.ServeHTTP(w, r)
		default:
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		}
	})
}

// ErrorLog logs what an http.Server reports.
func ErrorLog(l logr.Logger) *log.Logger { return log.New(errorLog{l}, "", 0) }

// errorLog logs what net/http reports. Everything but a panic is a client's doing, and any client could fill the log with it.
type errorLog struct{ log logr.Logger }

func (l errorLog) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if strings.Contains(text, "panic") {
		l.log.Info("A request ended with a panic", "report", text)
	} else {
		l.log.V(1).Info("A connection failed", "report", text)
	}
	return len(line), nil
}
