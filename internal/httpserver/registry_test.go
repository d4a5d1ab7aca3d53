package httpserver

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// registry has one metric, of a name.
type registry struct {
	mu    sync.Mutex // guards what follows
	page  string
	err   error
	hang  chan struct{}
	reads int
}

func (r *registry) Gather() ([]*dto.MetricFamily, error) {
	r.mu.Lock()
	r.reads++
	page, err, hang := r.page, r.err, r.hang
	r.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if err != nil {
		return nil, err
	}
	own := prometheus.NewRegistry()
	own.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: page}))
	return own.Gather()
}

// set changes what the registry answers from now on.
func (r *registry) set(page string, err error, hang chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.page, r.err, r.hang = page, err, hang
}

func (r *registry) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reads
}
