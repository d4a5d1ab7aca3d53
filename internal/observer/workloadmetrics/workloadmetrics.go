// Package workloadmetrics counts connections by pair of workloads, for Prometheus. The number of series is bounded.
package workloadmetrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// idle is how long a series is kept without a new connection once there is no room for others.
const idle = time.Hour

// sweepEvery is how often idle series are looked for at most.
const sweepEvery = time.Minute

// pair has the labels of a series.
type pair struct {
	sourceNamespace, source           string
	destinationNamespace, destination string
	verdict                           string
}

type count struct {
	connections uint64
	last        time.Time
}

// Metrics is a collector of the counts.
type Metrics struct {
	max int

	mu       sync.Mutex
	counts   map[pair]*count
	unlisted uint64
	swept    time.Time
}

// New returns Metrics with at most max series.
func New(most int) *Metrics { return &Metrics{max: most, counts: map[pair]*count{}} }

// Add counts a flow's connections.
func (m *Metrics) Add(f *observerapi.Flow, now time.Time) {
	if f.Connections == 0 { // it continues a connection
		return
	}
	p := pair{verdict: string(f.Verdict)}
	p.sourceNamespace, p.source = labels(&f.Source)
	p.destinationNamespace, p.destination = labels(&f.Destination)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[p]
	if c == nil {
		if !m.hasRoom(now) {
			m.unlisted += f.Connections
			return
		}
		c = &count{}
		m.counts[p] = c
	}
	c.connections += f.Connections
	c.last = now
}

func (m *Metrics) hasRoom(now time.Time) bool {
	if len(m.counts) < m.max {
		return true
	}
	if now.Sub(m.swept) < sweepEvery {
		return false
	}
	m.swept = now
	for p, c := range m.counts {
		if now.Sub(c.last) > idle {
			delete(m.counts, p)
		}
	}
	return len(m.counts) < m.max
}

// Ends that are no pods: their addresses would be a series each.
const (
	node    = "node"
	outside = "outside"
)

// labels of an end: its namespace, and its workload as Kind/name.
func labels(e *observerapi.End) (namespace, workload string) {
	switch {
	case e.Workload != nil:
		return e.Namespace, e.Workload.Kind + "/" + e.Workload.Name
	case e.Namespace != "":
		return e.Namespace, "Pod/" + e.Pod
	case e.IsNode:
		return "", node
	}
	return "", outside
}

var (
	connections = prometheus.NewDesc("kidoban_observer_workload_connections_total",
		"Connections between two workloads, by verdict, while there is room for the pair.",
		[]string{"source_namespace", "source_workload", "destination_namespace", "destination_workload", "verdict"}, nil)
	unlisted = prometheus.NewDesc("kidoban_observer_workload_connections_unlisted_total",
		"Connections of pairs of workloads that there is no room for.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	out <- connections
	out <- unlisted
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for p, c := range m.counts {
		out <- prometheus.MustNewConstMetric(connections, prometheus.CounterValue, float64(c.connections),
			p.sourceNamespace, p.source, p.destinationNamespace, p.destination, p.verdict)
	}
	out <- prometheus.MustNewConstMetric(unlisted, prometheus.CounterValue, float64(m.unlisted))
}
