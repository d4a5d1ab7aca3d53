package sink

import "github.com/prometheus/client_golang/prometheus"

// metrics of sinks. docs/metrics.md lists them.
type metrics struct {
	registry prometheus.Registerer
	prefix   string
	written  *prometheus.CounterVec
	dropped  *prometheus.CounterVec
	errors   *prometheus.CounterVec
}

func newMetrics(registry prometheus.Registerer, prefix string) *metrics {
	m := &metrics{
		registry: registry,
		prefix:   prefix,
		written: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_lines_total", Help: "Lines that a sink has taken."}, []string{"sink"}),
		dropped: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_dropped_lines_total", Help: "Lines that were lost, because a sink was behind (queue-full) or would not have them (refused)."},
			[]string{"sink", "reason"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: prefix + "_errors_total", Help: "Deliveries to a sink that failed; what can heal is tried again."}, []string{"sink"}),
	}
	registry.MustRegister(m.written, m.dropped, m.errors)
	return m
}

// watch exports how many lines wait for a sink.
func (m *metrics) watch(sink string, length func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: m.prefix + "_queued_lines", Help: "Lines that wait for a sink.",
		ConstLabels: prometheus.Labels{"sink": sink}}, length))
}
