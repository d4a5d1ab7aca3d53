package flowpush

import "github.com/prometheus/client_golang/prometheus"

// metrics of a Pusher. docs/metrics.md lists them.
type metrics struct {
	recorded prometheus.Counter
	pushed   prometheus.Counter
	lost     *prometheus.CounterVec // by reason
	queued   prometheus.Gauge
	streams  prometheus.Gauge
	failures *prometheus.CounterVec // by gRPC code
}

func newMetrics(registry prometheus.Registerer) *metrics {
	m := &metrics{
		recorded: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_flow_records_total", Help: "Flow records that the agent has made for the observer."}),
		pushed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kidoban_agent_flow_records_pushed_total", Help: "Flow records that a replica of the observer has confirmed; with two replicas, each record counts twice."}),
		lost: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_flow_records_lost_total", Help: "Flow records that some replica of the observer never gets, because it was away or slow (queue), and packets that are in no record, because the kernel's map was full (map)."},
			[]string{"reason"}),
		queued: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_flow_records_queued_bytes", Help: "Memory of flow records that some replica of the observer has not confirmed."}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "kidoban_agent_observer_streams", Help: "Replicas of the observer that the agent is connected to."}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "kidoban_agent_observer_failures_total", Help: "Streams to replicas of the observer that ended or could not be opened, by gRPC code; the agent retries."}, []string{"code"}),
	}
	for _, reason := range []string{lossMap, lossQueue} {
		m.lost.WithLabelValues(reason)
	}
	registry.MustRegister(m.recorded, m.pushed, m.lost, m.queued, m.streams, m.failures)
	return m
}
