package httpserver

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// registry has one metric, of a name.
type registry struct {
	page  string
	err   error
	hang  chan struct{}
	reads int
}

func (r *registry) Gather() ([]*dto.MetricFamily, error) {
	r.reads++
	if r.hang != nil {
		<-r.hang
	}
	if r.err != nil {
		return nil, r.err
	}
	own := prometheus.NewRegistry()
	own.MustRegister(prometheus.NewGauge(prometheus.GaugeOpts{Name: r.page}))
	return own.Gather()
}
