package onward

import (
	"context"
	"encoding/json"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/sink"
)

// metrics is the first part of the names of the metrics.
const metrics = "kidoban_observer_onward"

// Options of Onward.
type Options struct {
	// Sinks that flows go to.
	Sinks    []sink.Sink
	Log      logr.Logger
	Registry prometheus.Registerer
}

// Onward sends flows to sinks.
type Onward struct {
	log    logr.Logger
	lines  *sink.Lines
	missed prometheus.Counter
}

// New returns an Onward. Nothing is sent before Run.
func New(o Options) *Onward {
	missed := prometheus.NewCounter(prometheus.CounterOpts{
		Name: metrics + "_missed_flows_total", Help: "Flows that came faster than they could be written as lines."})
	o.Registry.MustRegister(missed)
	return &Onward{
		log: o.Log, missed: missed, lines: sink.NewLines(sink.Options{Sinks: o.Sinks, Log: o.Log, Registry: o.Registry, Metrics: metrics}),
	}
}

// Send takes a flow. It does not wait.
func (o *Onward) Send(f *observerapi.Flow) {
	text, err := json.Marshal(f)
	if err != nil {
		o.log.Error(err, "Cannot write a flow as a line")
		return
	}
	o.lines.Write(f.Last, append(text, '\n'))
}

// Missed counts flows that did not come to Send.
func (o *Onward) Missed(n uint64) { o.missed.Add(float64(n)) }

// Run sends flows until the context is done; then those that are queued, as far as that goes in a few seconds.
func (o *Onward) Run(ctx context.Context) { o.lines.Run(ctx) }
