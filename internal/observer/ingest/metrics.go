package ingest

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	agents   prometheus.Gauge
	refused  *prometheus.CounterVec
	reports  prometheus.Counter
	failures prometheus.Counter
	storing  prometheus.Histogram
	lost     *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
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
	for _, c := range []prometheus.Collector{m.agents, m.refused, m.reports, m.failures, m.storing, m.lost} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
