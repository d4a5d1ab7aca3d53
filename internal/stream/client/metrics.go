package client

import "github.com/prometheus/client_golang/prometheus"

// metrics of a Client. Names and meanings are listed in docs/metrics.md.
type metrics struct {
	streams  *prometheus.GaugeVec   // by role
	failures *prometheus.CounterVec // by gRPC code
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "kidoban_agent_streams", Help: "Streams to replicas of the controller, by the replica's role: leader or follower."}, []string{"role"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_stream_failures_total", Help: "Streams to replicas of the controller that ended or could not be opened, by gRPC code; the agent retries."}, []string{"code"}),
	}
	registry.MustRegister(m.streams, m.failures)
	return m
}
