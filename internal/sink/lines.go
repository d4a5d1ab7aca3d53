package sink

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
)

// Options of Lines.
type Options struct {
	Sinks []Sink
	// Log gets a line when a sink fails, and when it works again.
	Log      logr.Logger
	Registry prometheus.Registerer
	// Metrics is the first part of the metrics' names.
	Metrics string
}

// Lines are those on their way to sinks.
type Lines struct{ queues []*queue }

// NewLines returns Lines. Nothing is delivered before Run.
func NewLines(o Options) *Lines {
	l := &Lines{}
	m := newMetrics(o.Registry, o.Metrics)
	for _, s := range o.Sinks {
		l.queues = append(l.queues, newQueue(s, m, o.Log.WithValues("sink", s.Name())))
	}
	return l
}

// Wanted reports whether there is a sink.
func (l *Lines) Wanted() bool { return len(l.queues) > 0 }

// Write takes a line, with its line feed, for all sinks. It does not wait: a sink that cannot keep up loses the line.
func (l *Lines) Write(t time.Time, text []byte) {
	for _, q := range l.queues {
		q.offer(line{time: t, text: text})
	}
}

// Run brings lines to the sinks until the context is done; then what is queued, as far as that goes in a few seconds.
func (l *Lines) Run(ctx context.Context) {
	var queues sync.WaitGroup
	for _, q := range l.queues {
		queues.Go(func() { q.run(ctx) })
	}
	queues.Wait()
}
