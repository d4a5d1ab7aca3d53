package flows

import (
	"context"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// maxQueued is how many flows wait for one follower.
const maxQueued = 20_000

// Arrival is what a follower receives: a flow, or a number of flows that it was too slow for.
type Arrival struct {
	Flow   *observerapi.Flow
	Missed uint64
	// Losses that agents have reported.
	Losses []observerapi.Loss
}

// live passes on flows as they arrive.
type live struct {
	rate rate

	mu        sync.Mutex // guards what follows
	pairing   *pairing.Live
	seen      map[[2]string]*store.Sequences // of the process's time
	followers map[*follower]struct{}
	ended     bool
}

type follower struct {
	queue  chan Arrival
	missed uint64
}

func (l *live) init() {
	l.pairing, l.seen, l.followers = pairing.NewLive(), map[[2]string]*store.Sequences{}, map[*follower]struct{}{}
}

// maxSeen bounds the generations that are remembered.
const maxSeen = 20_000

func (l *live) stored(batches []store.Batch, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range batches {
		b := &batches[i]
		key := [2]string{b.Node, b.Generation}
		s := l.seen[key]
		if s == nil {
			if len(l.seen) >= maxSeen {
				clear(l.seen)
			}
			s = &store.Sequences{}
			l.seen[key] = s
		}
		if s.Has(b.Sequence) {
			continue
		}
		s.Add(b.Sequence)
		l.rate.add(len(b.Reports), now)
		if len(b.Losses) > 0 {
			l.send(Arrival{Losses: b.Losses})
		}
		l.show(l.pairing.Add(b.Reports, now))
	}
}

func (l *live) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.show(l.pairing.Tick(now))
}

func (l *live) show(flows []*observerapi.Flow) {
	if len(l.followers) == 0 {
		return
	}
	for _, f := range flows {
		l.send(Arrival{Flow: f})
	}
}

func (l *live) send(a Arrival) {
	for f := range l.followers {
		a.Missed = f.missed
		select {
		case f.queue <- a:
			f.missed = 0
		default:
			f.missed++
		}
	}
}

func (l *live) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for f := range l.followers {
		close(f.queue)
		delete(l.followers, f)
	}
}

// follow returns what arrives from now on, until the context is done.
func (l *live) follow(ctx context.Context) <-chan Arrival {
	f := &follower{queue: make(chan Arrival, maxQueued)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		close(f.queue)
		return f.queue
	}
	l.followers[f] = struct{}{}
	context.AfterFunc(ctx, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if _, ok := l.followers[f]; ok {
			close(f.queue)
			delete(l.followers, f)
		}
	})
	return f.queue
}
