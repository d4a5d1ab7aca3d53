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
	for _, c := range []prometheus.Collector{m.agents, m.refused, m.reports, m.failures, m.storing, m.lost, readings{o}} {
		if err := o.Registry.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

var (
	storeBytes  = prometheus.NewDesc("kidoban_observer_store_bytes", "Size of the store on disk.", nil, nil)
	storeOldest = prometheus.NewDesc("kidoban_observer_store_oldest_timestamp_seconds", "Time of the oldest flow in the store; 0 if there is none.", nil, nil)
	expiry      = prometheus.NewDesc("kidoban_observer_certificate_expiry_timestamp_seconds",
		"Time when the certificate expires that agents and readers verify; 0 if there is none yet.", nil, nil)
)

// readings are what is read when metrics are. They are 0 where there is nothing to say. The store is asked once: a database has to add up.
type readings struct{ Options }

func (r readings) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{storeBytes, storeOldest, expiry} {
		out <- d
	}
}

func (r readings) Collect(out chan<- prometheus.Metric) {
	status, err := r.Store.Status(context.Background())
	if err != nil {
		status = store.Status{}
	}
	out <- prometheus.MustNewConstMetric(storeBytes, prometheus.GaugeValue, float64(status.Bytes))
	out <- prometheus.MustNewConstMetric(storeOldest, prometheus.GaugeValue, seconds(status.Since))
	out <- prometheus.MustNewConstMetric(expiry, prometheus.GaugeValue, seconds(r.Expires()))
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}
