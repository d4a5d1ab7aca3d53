package flowlog

import (
	"context"
	"sync"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// recentEvents is how many events Recent keeps: 2 MB at most.
const recentEvents = 4096

// Recent is a ring of the latest events. It may be used by several goroutines at the same time; readers do not delay others.
type Recent struct {
	mu   sync.Mutex
	ring []agentapi.Event // grows to its size, then goes round
	size int
	next uint64        // number of the next event; the first one was 0
	news chan struct{} // closed, and another one made, with each event
}

func newRecent(size int) *Recent {
	return &Recent{size: size, news: make(chan struct{})}
}

func (r *Recent) add(e agentapi.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ring) < r.size {
		r.ring = append(r.ring, e)
	} else {
		r.ring[r.next%uint64(r.size)] = e
	}
	r.next++
	close(r.news)
	r.news = make(chan struct{})
}

// From gives the events from a number on, the oldest first; first is the number of the first of them, which is greater than
// asked for where events were overwritten meanwhile.
func (r *Recent) From(number uint64) (events []agentapi.Event, first uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from(number)
}

func (r *Recent) from(number uint64) ([]agentapi.Event, uint64) {
	number = min(max(number, r.next-uint64(len(r.ring))), r.next)
	out := make([]agentapi.Event, 0, r.next-number)
	for i := number; i < r.next; i++ {
		out = append(out, r.ring[i%uint64(r.size)])
	}
	return out, number
}

// Wait is From that waits for the next event where there is none yet. It gives none when the context is done.
func (r *Recent) Wait(ctx context.Context, number uint64) (events []agentapi.Event, first uint64) {
	for {
		r.mu.Lock()
		events, first = r.from(number)
		news := r.news
		r.mu.Unlock()
		if len(events) > 0 {
			return events, first
		}
		select {
		case <-ctx.Done():
			return nil, first
		case <-news:
		}
	}
}
