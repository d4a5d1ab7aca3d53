package httpserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// Paths of the probes. Below each, a check's name asks for that check.
const (
	PathLive  = "/healthz"
	PathReady = "/readyz"
)

// StalledAfter is how long a part of a program may stand still before its probes fail. A kubelet then starts the container again.
const StalledAfter = 2 * time.Minute

const checkInterval = time.Second

// Checks are health checks that run in the background, once a second, each in its own goroutine. Probes read the results and wait for nothing: a check
// that hangs fails after StalledAfter.
type Checks struct {
	checks map[string]healthz.Checker

	mu      sync.Mutex // guards what follows; held for an assignment
	results map[string]result
}

// result is what a check returned.
type result struct {
	at  time.Time
	err error
}

// RunChecks starts health checks, which run until the context is done.
func RunChecks(ctx context.Context, checks map[string]healthz.Checker) *Checks {
	c := &Checks{checks: maps.Clone(checks), results: map[string]result{}}
	begun := time.Now()
	for name := range c.checks {
		c.results[name] = result{begun, errors.New("not checked yet")}
	}
	for name, check := range c.checks { // which write results
		go c.run(ctx, name, check)
	}
	return c
}

func (c *Checks) run(ctx context.Context, name string, check healthz.Checker) {
	tick := time.NewTicker(checkInterval)
	defer tick.Stop()
	for {
		err := check(nil)
		c.mu.Lock()
		c.results[name] = result{time.Now(), err}
		c.mu.Unlock()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// last returns what a check returned last.
func (c *Checks) last(name string) error {
	c.mu.Lock()
	r := c.results[name]
	c.mu.Unlock()
	if age := time.Since(r.at); age > StalledAfter {
		return fmt.Errorf("the check has not returned for %s: the program hangs", age.Round(time.Second))
	}
	return r.err
}

// handler answers probes from the results.
func (c *Checks) handler() http.Handler {
	checkers := map[string]healthz.Checker{}
	for name := range c.checks {
		checkers[name] = func(*http.Request) error { return c.last(name) }
	}
	return &healthz.Handler{Checks: checkers}
}

// Probes serves both kinds of probes.
func Probes(live, ready *Checks) http.Handler {
	mux := http.NewServeMux()
	for path, checks := range map[string]*Checks{PathLive: live, PathReady: ready} {
		h := http.StripPrefix(path, checks.handler())
		mux.Handle(path, h)
		mux.Handle(path+"/", h)
	}
	return mux
}
