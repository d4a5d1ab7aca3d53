package controller

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/healthz"

	"github.com/kidoban/kidoban/internal/httpserver"
)

// Progress has the checks for /healthz of one Controller, which it is given to by its Options.
type Progress struct {
	state sync.Locker // guards the Controller's state

	mu      sync.Mutex // guards what follows; held for an assignment
	working int        // requests that are being reconciled
	last    time.Time  // when the last one ended, or, after a time without any, began
}

// Live are the checks that call for a restart of the process when one fails. A check that waits for a lock which is never released fails, too:
// httpserver.Checks counts it as failed after httpserver.StalledAfter.
func (p *Progress) Live() map[string]healthz.Checker {
	return map[string]healthz.Checker{
		"progress": func(*http.Request) error { return p.check(time.Now()) },
		"state": func(*http.Request) error {
			if p.state != nil {
				p.state.Lock()
				defer p.state.Unlock()
			}
			return nil
		},
	}
}

// begin records that a request is being reconciled, until end is called.
func (p *Progress) begin(now time.Time) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.working++; p.working == 1 {
		p.last = now
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.working--
		p.last = time.Now()
	}
}

// check fails if requests are being reconciled and none has ended for httpserver.StalledAfter. A request that the API server does not answer
// ends before.
func (p *Progress) check(now time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if age := now.Sub(p.last); p.working > 0 && age > httpserver.StalledAfter {
		return fmt.Errorf("%d requests are being reconciled, and none has ended for %s", p.working, age.Round(time.Second))
	}
	return nil
}
