package ingest

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/observer/store"
)

type metrics struct {
	agents   prometheus.Gauge
	refused  *prometheus.CounterVec
	reports  prometheus.Counter
	failures prometheus.Counter
	storing  prometheus.Histogram
	lost     *prometheus.CounterVec
}

func newMetrics(o Options) (*metrics, error) {
	m := &metrics{
		agents:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "kidoban_observer_agents", Help: "Agents that are connected to this replica."}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kidoban_observer_agents_refused_total", Help: "Callers that got no stream, by reason."}, []string{"reason"}),
		reports:  prometheus.NewCounter(prometheus.CounterOpts{Name: "kidoban_observer_records_total", Help: "Records of agents that were stored, or were stored already."}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "kidoban_observer_store_failures_total", Help: "Writes to the store that failed; agents push again."}),
		storing: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kidoban_observer_store_write_duration_seconds", Help: "Time that one write to the store took.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "kidoban_observer_lost_packets_total", Help: "Packets that are in no record, by reason."}, []string{"reason"}),
	}
	for _, c := range append([]prometheus.Collector{m.agents, m.refused, m.reports, m.failures, m.storing, m.lost}, gauges(o)...) {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// gauges are read when metrics are. They are 0 where there is nothing to say.
func gauges(o Options) []prometheus.Collector {
	status := func() store.Status {
		s, err := o.Store.Status(context.Background())
		if err != nil {
			return store.Status{}
		}
		return s
	}
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, read)
	}
	return []prometheus.Collector{
		gauge("kidoban_observer_store_bytes", "Size of the store on disk.", func() float64 { return float64(status().Bytes) }),
		gauge("kidoban_observer_store_oldest_timestamp_seconds", "Time of the oldest flow in the store; 0 if there is none.",
			func() float64 { return seconds(status().Since) }),
		gauge("kidoban_observer_certificate_expiry_timestamp_seconds",
			"Time when the certificate expires that agents and readers verify; 0 if there is none yet.", func() float64 { return seconds(o.Expires()) }),
	}
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
