package streamserver

import (
	"errors"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics of a server.
type metrics struct {
	streams  prometheus.Gauge
	refused  *prometheus.CounterVec
	ended    *prometheus.CounterVec
	received prometheus.Counter
}

func newMetrics(registry prometheus.Registerer) (*metrics, error) {
	streams, err := register(registry, prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "kidoban_controller_streams", Help: "Agents that are connected to this replica.",
	}))
	if err != nil {
		return nil, err
	}
	refused, err := register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kidoban_controller_streams_refused_total", Help: "Callers that got no stream, by reason.",
	}, []string{"reason"}))
	if err != nil {
		return nil, err
	}
	ended, err := register(registry, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kidoban_controller_streams_ended_total", Help: "Streams that the controller ended, by reason.",
	}, []string{"reason"}))
	if err != nil {
		return nil, err
	}
	received, err := register(registry, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "kidoban_controller_stream_messages_total", Help: "Messages from agents.",
	}))
	return &metrics{streams: streams, refused: refused, ended: ended, received: received}, err
}

// register returns a collector that the registry has: an earlier server's, if there was one.
func register[T prometheus.Collector](registry prometheus.Registerer, c T) (T, error) {
	err := registry.Register(c)
	if err == nil {
		return c, nil
	}
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if existing, ok := already.ExistingCollector.(T); ok {
			return existing, nil
		}
	}
	return c, fmt.Errorf("register a metric of the stream: %w", err)
}
