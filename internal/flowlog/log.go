package flowlog

import (
	"context"
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// Options of a Log.
type Options struct {
	// Node is the name that lines bear.
	Node string
	// Directory knows pods, rules and sets.
	Directory Directory
	// Format of the lines; Text by default. Recent events have none.
	Format Format
	// Sinks that lines go to; none: events are kept in Recent alone.
	Sinks []Sink
	// Log is told when a sink fails, and when it works again.
	Log      logr.Logger
	Registry prometheus.Registerer
}

// Log writes events.
type Log struct {
	opts   Options
	record *recorder
	queues []*queue
	recent *Recent
}

// New returns a Log. Nothing is written before Start.
func New(opts Options) *Log {
	if opts.Format == "" {
		opts.Format = Text
	}
	l := &Log{opts: opts, record: newRecorder(opts.Node, opts.Directory), recent: newRecent(recentEvents)}
	m := newMetrics(opts.Registry)
	for _, s := range opts.Sinks {
		l.queues = append(l.queues, newQueue(s, m, opts.Log.WithValues("sink", s.Name())))
	}
	return l
}

// Recent are the latest events.
func (l *Log) Recent() *Recent { return l.recent }

// Handle takes an event. It does not wait for a sink: one that cannot keep up loses the line. It is called by one goroutine.
func (l *Log) Handle(e dataplane.Event) {
	event := l.record.record(&e)
	l.recent.add(event)
	if len(l.queues) == 0 {
		return
	}
	text, err := l.opts.Format.Line(&event)
	if err != nil {
		l.opts.Log.Error(err, "Cannot write an event as a line")
		return
	}
	for _, q := range l.queues {
		q.offer(line{time: event.Time, text: text})
	}
}

// Start brings lines to the sinks until the context is done, and then what is left as far as it goes at once.
func (l *Log) Start(ctx context.Context) error {
	var running sync.WaitGroup
	for _, q := range l.queues {
		running.Go(func() { q.run(ctx) })
	}
	running.Wait()
	return nil
}
