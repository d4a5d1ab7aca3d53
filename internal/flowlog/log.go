package flowlog

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/sink"
)

// metrics is the first part of the names of the flow log's metrics.
const metrics = "kidoban_agent_flow_log"

// Options of a Log.
type Options struct {
	// Node is the name that lines bear.
	Node string
	// Source of the events.
	Source Source
	// Interval at which repeats are read and written: a line for each kind that goes on.
	Interval time.Duration
	// Directory knows pods, rules and sets.
	Directory Directory
	// Format of the lines; Text by default. Recent events have none.
	Format Format
	// Sinks that lines go to; none: events are kept in Recent alone.
	Sinks []sink.Sink
	// Log gets a line when a sink fails, and when it works again.
	Log      logr.Logger
	Registry prometheus.Registerer
}

// Source is a dataplane.Dataplane.
type Source interface {
	Events(ctx context.Context, handle func(events.Event)) error
	Repeats() ([]events.Event, error)
}

// Log writes events.
type Log struct {
	opts   Options
	record *Recorder
	lines  *sink.Lines
	recent *Recent

	failing bool // to read repeats
}

// New returns a Log. Nothing is written before Start.
func New(opts Options) *Log {
	if opts.Format == "" {
		opts.Format = Text
	}
	l := &Log{opts: opts, record: NewRecorder(opts.Node, opts.Directory), recent: newRecent(recentEvents)}
	l.lines = sink.NewLines(sink.Options{Sinks: opts.Sinks, Log: opts.Log, Registry: opts.Registry, Metrics: metrics})
	return l
}

// Recent are the latest events.
func (l *Log) Recent() *Recent { return l.recent }

// handle takes an event. It does not wait for a sink: one that cannot keep up loses the line. It may be called by several goroutines at
// the same time.
func (l *Log) handle(e events.Event) {
	event := l.record.Record(&e)
	l.recent.add(event)
	if !l.lines.Wanted() {
		return
	}
	text, err := l.opts.Format.Line(&event)
	if err != nil {
		l.opts.Log.Error(err, "Cannot write an event as a line")
		return
	}
	l.lines.Write(event.Time, text)
}

// Start reads events and brings their lines to the sinks until the context is done; then what has been counted and what is
// queued, as far as that goes in a few seconds.
func (l *Log) Start(ctx context.Context) error {
	deliver, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	var lines sync.WaitGroup
	lines.Go(func() { l.lines.Run(deliver) })
	err := l.read(ctx)
	end()
	lines.Wait()
	return err
}

func (l *Log) read(ctx context.Context) error {
	ended := make(chan error, 1)
	go func() { ended <- l.opts.Source.Events(ctx, l.handle) }()
	interval := time.NewTicker(l.opts.Interval)
	defer interval.Stop()
	for {
		select {
		case err := <-ended:
			l.readRepeats()
			return err
		case <-interval.C:
			l.readRepeats()
		}
	}
}

func (l *Log) readRepeats() {
	repeats, err := l.opts.Source.Repeats()
	if err != nil && !l.failing {
		l.opts.Log.Error(err, "Cannot read what was counted for the flow log; it is tried again")
	}
	l.failing = err != nil
	for _, e := range repeats {
		l.handle(e)
	}
}
