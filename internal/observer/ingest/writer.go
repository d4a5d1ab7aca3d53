package ingest

import (
	"context"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/observer/store"
)

const (
	// maxTogether is how many reports are stored in one transaction.
	maxTogether = 50_000
	// maxWaiting is how many pushes wait for the store.
	maxWaiting = 256
)

// writer stores batches. Those that come while it stores others are stored together: each transaction waits for the disk.
type writer struct {
	store   store.Store
	stored  func([]store.Batch)
	metrics *metrics
	log     logr.Logger
	queue   chan push
}

type push struct {
	batch store.Batch
	done  chan error
}

func newWriter(s store.Store, stored func([]store.Batch), m *metrics, log logr.Logger) *writer {
	return &writer{store: s, stored: stored, metrics: m, log: log, queue: make(chan push, maxWaiting)}
}

// put stores a batch, or returns why it is not stored.
func (w *writer) put(ctx context.Context, b store.Batch) error {
	p := push{b, make(chan error, 1)}
	select {
	case w.queue <- p:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run stores until the context is done.
func (w *writer) run(ctx context.Context) {
	failing := false
	for {
		var pushes []push
		select {
		case <-ctx.Done():
			return
		case p := <-w.queue:
			pushes = append(pushes, p)
		}
		reports := len(pushes[0].batch.Reports)
	more:
		for reports < maxTogether {
			select {
			case p := <-w.queue:
				pushes = append(pushes, p)
				reports += len(p.batch.Reports)
			default:
				break more
			}
		}
		batches := make([]store.Batch, len(pushes))
		for i, p := range pushes {
			batches[i] = p.batch
		}
		began := time.Now()
		err := w.store.Put(ctx, batches)
		w.metrics.storing.Observe(time.Since(began).Seconds())
		if err == nil {
			w.metrics.reports.Add(float64(reports))
			w.stored(batches)
		} else {
			w.metrics.failures.Inc()
		}
		if err != nil && !failing && ctx.Err() == nil {
			w.log.Error(err, "Cannot store flows; agents keep what they have room for, and count the rest as lost")
		}
		failing = err != nil
		for _, p := range pushes {
			p.done <- err
		}
	}
}
