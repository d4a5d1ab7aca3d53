package streamserver

import "github.com/prometheus/client_golang/prometheus"

// Metrics of a server.
type metrics struct {
	streams  prometheus.Gauge
	refused  *prometheus.CounterVec
	ended    *prometheus.CounterVec
	received prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_controller_streams", Help: "Agents that are connected to this replica.",
		}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_controller_streams_refused_total", Help: "Callers that got no stream, by reason.",
		}, []string{"reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_controller_streams_ended_total", Help: "Streams that the controller ended, by reason.",
		}, []string{"reason"}),
		received: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_controller_stream_messages_total", Help: "Messages from agents.",
		}),
	}
	registry.MustRegister(m.streams, m.refused, m.ended, m.received)
	return m
}
