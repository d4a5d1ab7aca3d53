package sink

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/util/wait"
)

// Sink is where lines go.
type Sink interface {
	// Name of the sink in metrics and logs.
	Name() string
	// limits of what is delivered at once.
	limits() limits
	// deliver brings some lines, at least one, to their place. After an error it is called with the same lines again, unless the error is a
	// refusedError. close is called once, after the last deliver.
	deliver(ctx context.Context, lines []line) (result, error)
	close() error
}

// line is one line of text, with its line feed.
type line struct {
	time time.Time
	text []byte
}

type limits struct {
	lines    int           // in one delivery
	bytes    int           // in one delivery
	overhead int           // bytes that are counted for each line, beside its own
	span     time.Duration // between the oldest and the newest line of a delivery; 0: any
	linger   time.Duration // how long a delivery that is not full waits for more
}

// result says what became of lines that were delivered.
type result struct{ refused int }

// refusedError says that the same lines would be refused again.
type refusedError struct{ error }

func (e refusedError) Unwrap() error { return e.error }

const (
	// queued is how many lines a sink can be behind: a few MB, or minutes of many refusals.
	queued = 16384
	// lastChance is how long deliveries may take when the agent ends.
	lastChance = 3 * time.Second
)

var retries = wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.3, Steps: 1 << 30, Cap: time.Minute}

// queue is what waits for a sink, and the goroutine that brings it there.
type queue struct {
	sink    Sink
	log     logr.Logger
	retries wait.Backoff
	// lastChance is how long deliveries may take when the context is done.
	lastChance time.Duration
	lines      chan line
	next       *line // taken from lines and not fit for the delivery before
	failing    bool

	written, overflown, refused, errors prometheus.Counter
}

func newQueue(s Sink, m *metrics, log logr.Logger) *queue {
	q := &queue{
		sink: s, log: log, retries: retries, lastChance: lastChance, lines: make(chan line, queued),
		written:   m.written.WithLabelValues(s.Name()),
		overflown: m.dropped.WithLabelValues(s.Name(), "queue-full"),
		refused:   m.dropped.WithLabelValues(s.Name(), "refused"),
		errors:    m.errors.WithLabelValues(s.Name()),
	}
	m.watch(s.Name(), func() float64 { return float64(len(q.lines)) })
	return q
}

func (q *queue) offer(l line) {
	select {
	case q.lines <- l:
	default:
		q.overflown.Inc()
	}
}

// run delivers until the context is done, and then what is there, as long as that goes without an error and in time.
func (q *queue) run(ctx context.Context) {
	// A delivery under way when the context ends is not cut off: it would be unknown which of its lines arrived.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(q.lastChance, cancel) })()
	for {
		batch := q.collect(ctx)
		if len(batch) == 0 || !q.bring(ctx, work, batch) {
			break
		}
	}
	if err := q.sink.close(); err != nil {
		q.log.Error(err, "Cannot close the flow log")
	}
}

// collect waits for a line, and for more as the limits say. It gives none only when the context is done and the queue empty.
func (q *queue) collect(ctx context.Context) []line {
	lim := q.sink.limits()
	linger := time.NewTimer(lim.linger)
	linger.Stop()
	defer linger.Stop()

	var batch []line
	var size int
	var oldest, newest time.Time
	for len(batch) < lim.lines {
		l, ok := q.take(ctx, linger.C, len(batch) > 0)
		if !ok {
			return batch
		}
		if len(batch) == 0 {
			oldest, newest = l.time, l.time
			linger.Reset(lim.linger)
		}
		size += len(l.text) + lim.overhead
		oldest, newest = earlier(oldest, l.time), later(newest, l.time)
		if len(batch) > 0 && (size > lim.bytes || lim.span > 0 && newest.Sub(oldest) >= lim.span) {
			q.next = &l
			return batch
		}
		batch = append(batch, l)
	}
	return batch
}

// take waits for a line. When the context is done it gives what is there, without waiting.
func (q *queue) take(ctx context.Context, enough <-chan time.Time, begun bool) (line, bool) {
	if l := q.next; l != nil {
		q.next = nil
		return *l, true
	}
	select {
	case l := <-q.lines:
		return l, true
	default:
	}
	if !begun {
		enough = nil
	}
	select {
	case l := <-q.lines:
		return l, true
	case <-enough:
	case <-ctx.Done():
	}
	return line{}, false
}

// bring delivers lines, and tries again until it is done; false: the context was before.
func (q *queue) bring(ctx, work context.Context, batch []line) bool {
	for backoff := q.retries; !q.try(work, batch); {
		if ctx.Err() != nil {
			return false
		}
		select {
		case <-ctx.Done():
		case <-time.After(backoff.Step()):
		}
	}
	return true
}

// try delivers once, and reports whether that is the end of it.
func (q *queue) try(ctx context.Context, batch []line) bool {
	res, err := q.sink.deliver(ctx, batch)
	if err == nil {
		q.written.Add(float64(len(batch) - res.refused))
		q.refused.Add(float64(res.refused))
		if q.failing {
			q.failing = false
			q.log.Info("The flow log is written again")
		}
		return true
	}
	q.errors.Inc()
	var refused refusedError
	if errors.As(err, &refused) {
		q.refused.Add(float64(len(batch)))
		q.log.Error(err, "Lines of the flow log were refused", "lines", len(batch))
		return true
	}
	if !q.failing {
		q.failing = true
		q.log.Error(err, "Cannot write the flow log; it is tried again, and what does not fit the queue meanwhile is counted as dropped", "queue", queued)
	}
	return false
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
