//go:build e2e

package chaos

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/engine"
)

const (
	apiServer    = "172.30.0.10:6443"
	proxyAddress = "172.30.0.10:7443"
)

// trouble is what a proxy makes of requests.
type trouble struct {
	latency   time.Duration // of each request
	write     time.Duration // of each request that writes, besides
	event     time.Duration // of each event of a watch
	failing   float64       // share of requests that are answered with 500 or 429
	watchLife time.Duration // after which a watch is cut; 0: never
	expired   bool          // running watches get the error that their resourceVersion is too old
}

// A proxy stands between kidoban and the API server.
type proxy struct {
	forward *httputil.ReverseProxy

	mu       sync.Mutex
	trouble  trouble
	requests int
	failed   int
}

// startProxy serves until the test ends, with the API server's own certificate.
func startProxy(t *testing.T) *proxy {
	t.Helper()
	ca, err := os.ReadFile(test.Dir("pki", "ca.crt"))
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	transport := &http.Transport{
		DialContext:       test.DialControlPlane,
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
	}
	t.Cleanup(transport.CloseIdleConnections)
	p := &proxy{}
	p.forward = &httputil.ReverseProxy{
		ModifyResponse: func(r *http.Response) error {
			if event := p.now().event; event > 0 && r.Request.URL.Query().Get("watch") != "" {
				r.Body = delay(r.Body, event)
			}
			return nil
		},
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: apiServer}) },
		Transport:     transport,
		FlushInterval: -1, // a watch
		ErrorHandler:  func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	listener, err := test.ListenControlPlane("tcp", proxyAddress)
	must(t, err)
	served := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
	t.Cleanup(func() { _ = served.Close() })
	go func() {
		err := served.ServeTLS(listener, test.Dir("pki", "kube-apiserver.crt"), test.Dir("pki", "kube-apiserver.key"))
		if !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	return p
}

func (p *proxy) set(trouble trouble) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = trouble
}

func (p *proxy) now() trouble {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// delay passes on what it reads after a while, in order.
func delay(from io.ReadCloser, by time.Duration) io.ReadCloser {
	type part struct {
		data []byte
		err  error
		due  time.Time
	}
	parts := make(chan part, 1024)
	reader, writer := io.Pipe()
	go func() {
		for {
			data := make([]byte, 32<<10)
			n, err := from.Read(data)
			if parts <- (part{data[:n], err, time.Now().Add(by)}); err != nil {
				return
			}
		}
	}()
	go func() {
		for p := range parts {
			time.Sleep(time.Until(p.due))
			_, err := writer.Write(p.data)
			if err = cmp.Or(err, p.err); err != nil {
				writer.CloseWithError(err)
				_ = from.Close() // ends the other loop
				return
			}
		}
	}()
	return reader
}

func (p *proxy) counts() (requests, failed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests, p.failed
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fails := rand.Float64()
	p.mu.Lock()
	trouble := p.trouble
	p.requests++
	if fails < trouble.failing {
		p.failed++
	}
	p.mu.Unlock()
	query := r.URL.Query()
	watch := query.Get("watch") != ""
	// A watch that begins with the whole list asks for no resourceVersion that could be too old.
	goesOn := watch && query.Get("resourceVersion") != "" && query.Get("sendInitialEvents") == ""

	latency := trouble.latency
	if r.Method != http.MethodGet {
		latency += trouble.write
	}
	select {
	case <-time.After(latency):
	case <-r.Context().Done():
		return
	}
	switch {
	case fails < trouble.failing/2:
		http.Error(w, "chaos", http.StatusInternalServerError)
		return
	case fails < trouble.failing:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "chaos", http.StatusTooManyRequests)
		return
	case goesOn && trouble.expired:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusGone)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Expired","code":410,"message":"too old resource version: chaos"}`)
		return
	}
	if watch && trouble.watchLife > 0 {
		ctx, cancel := context.WithTimeout(r.Context(), trouble.watchLife)
		defer cancel()
		r = r.WithContext(ctx)
	}
	defer func() {
		// ReverseProxy panics where it cannot end a response properly: the connection is cut, as it should be.
		if e := recover(); e != nil {
			panic(http.ErrAbortHandler)
		}
	}()
	p.forward.ServeHTTP(w, r)
}

// through has both halves of kidoban reach the API server at an address, or where Kubernetes says again.
func through(t *testing.T, host, port string) {
	t.Helper()
	for _, workload := range []string{"deployment/kidoban-controller", "daemonset/kidoban-agent"} {
		_, err := cluster.Output(test.Kubectl(context.Background(), "-n", engine.Namespace, "set", "env", workload, "KUBERNETES_SERVICE_HOST"+host, "KUBERNETES_SERVICE_PORT"+port))
		if err != nil {
			t.Error(err)
		}
	}
}

// apiFailing lets kidoban see the API server through a proxy that makes it slow, failing and forgetful in turn.
func apiFailing(t *testing.T, x *trial) {
	p := startProxy(t)
	t.Cleanup(func() {
		through(t, "-", "-")
		if err := engine.AwaitReady(context.Background(), test); err != nil {
			t.Error(err)
		}
	})
	through(t, "=172.30.0.10", "=7443")
	must(t, engine.AwaitReady(t.Context(), test))
	if n, _ := p.counts(); n == 0 {
		t.Fatal("kidoban does not use the proxy")
	}
	for _, phase := range []struct {
		name    string
		trouble trouble
	}{
		{"slow", trouble{latency: 700 * time.Millisecond}},
		{"failing", trouble{latency: 50 * time.Millisecond, failing: 0.4, watchLife: 3 * time.Second}},
		{"forgetful", trouble{watchLife: 2 * time.Second, expired: true}},
	} {
		p.set(trouble{watchLife: time.Second}) // what is watched now must meet the trouble
		x.traffic.run(t, 2*time.Second)
		p.set(phase.trouble)
		if phase.name == "failing" {
			killAll(t, engineNow(t, "agent")) // a start needs more than one request to succeed
		}
		x.canary.toggle(t)
		troubled := time.Now()
		t.Logf("%s: in force after %s", phase.name, x.canary.await(t, troubled).Round(100*time.Millisecond))
		x.traffic.run(t, 10*time.Second)
	}
	x.canary.toggle(t)
	p.set(trouble{})
	x.heal = x.canary.await(t, time.Now())
	requests, failed := p.counts()
	t.Logf("%d requests, %d answered with errors", requests, failed)
}
