package httpserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
)

// PathMetrics is where metrics are served.
const PathMetrics = "/metrics"

const (
	metricsRefresh  = time.Second            // a snapshot that is younger is good enough
	metricsPatience = 500 * time.Millisecond // that a reader waits for a newer one
	firstPatience   = 5 * time.Second        // … and for the first one
	metricsStale    = time.Minute            // an older snapshot would hide that the program hangs
)

// Metrics serves a registry from a snapshot that is at most a second old. A registry that hangs, because a lock of the program is held, delays a reader
// by half a second: then it gets the previous snapshot or, after a minute, an error. The first reader waits for 5 s. However many read, the registry is read once a second, and one page
// is in memory. It is a prometheus.Gatherer, too.
type Metrics struct {
	registry prometheus.Gatherer

	mu      sync.Mutex // guards what follows
	last    snapshot
	running chan struct{} // closed when the registry has been read; nil while nothing reads it
}

// snapshot is what a registry contained. It does not change.
type snapshot struct {
	at       time.Time // zero: there is none
	families []*dto.MetricFamily
	page     []byte
	err      error
}

// NewMetrics returns the Metrics of a registry.
func NewMetrics(registry prometheus.Gatherer) *Metrics { return &Metrics{registry: registry} }

// Gather returns the snapshot's metrics, which must not be changed.
func (m *Metrics) Gather() ([]*dto.MetricFamily, error) {
	s := m.snapshot(context.Background())
	return s.families, s.err
}

// ServeHTTP answers in Prometheus' text format.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := m.snapshot(r.Context())
	if s.err != nil {
		http.Error(w, s.err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, _ = w.Write(s.page) // an error is the reader's, which is gone
}

// snapshot returns the newest snapshot, after it has waited a moment for one that is new enough.
func (m *Metrics) snapshot(ctx context.Context) snapshot {
	m.mu.Lock()
	last, running := m.last, m.running
	if running == nil && time.Since(last.at) >= metricsRefresh {
		running = make(chan struct{})
		m.running = running
		go m.refresh()
	}
	m.mu.Unlock()
	if running != nil {
		wait := metricsPatience
		if last.at.IsZero() {
			wait = firstPatience
		}
		patience := time.NewTimer(wait)
		defer patience.Stop()
		select {
		case <-running:
		case <-patience.C:
		case <-ctx.Done():
		}
		m.mu.Lock()
		last = m.last
		m.mu.Unlock()
	}
	switch age := time.Since(last.at); {
	case last.at.IsZero():
		last.err = errors.New("metrics have not been read yet")
	case age > metricsStale:
		last = snapshot{err: fmt.Errorf("metrics have not been read for %s: the program hangs", age.Round(time.Second))}
	}
	return last
}

// refresh reads the registry.
func (m *Metrics) refresh() {
	next := snapshot{at: time.Now()}
	if next.families, next.err = m.registry.Gather(); next.err == nil {
		next.page, next.err = render(next.families)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = next
	close(m.running)
	m.running = nil
}

func render(families []*dto.MetricFamily) ([]byte, error) {
	var page bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&page, f); err != nil {
			return nil, fmt.Errorf("write metric %s: %w", f.GetName(), err)
		}
	}
	return page.Bytes(), nil
}
