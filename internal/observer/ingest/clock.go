package ingest

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// clockWindow is longer than a push can take: agents wait half a minute for a confirmation and then push again. So the window has a push that was
// not delayed for long, if the node pushes at all.
const clockWindow = time.Minute

// maxSamples bounds what is kept of one node, and maxClocks the nodes.
const (
	maxSamples = 64
	maxClocks  = 2 * maxStreams
)

// clocks are those of nodes, as far as pushes show them. They outlast streams: what an agent pushes again after a delay comes on a new one.
type clocks struct {
	mu  sync.Mutex
	all map[string]*clock
}

func (c *clocks) of(node string) *clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.all[node]
	if known == nil {
		if c.all == nil || len(c.all) >= maxClocks {
			c.all = map[string]*clock{}
		}
		known = &clock{}
		c.all[node] = known
	}
	return known
}

// clock is what is known of a node's clock.
type clock struct {
	mu      sync.Mutex
	samples []sample // the oldest first
}

// sample is how far the observer's clock was before the node's according to one push: by the time that the push took too much.
type sample struct {
	at     time.Time
	offset time.Duration
}

// sent notes when a push was sent, by the node's clock, and received, by the observer's. It returns how far the observer's clock is before the
// node's: the least that recent pushes show, because a push that waited, as while the store was slow, seems to come from a clock that is late.
func (c *clock) sent(at, received time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.samples = slices.DeleteFunc(c.samples, func(s sample) bool { return received.Sub(s.at) > clockWindow })
	if len(c.samples) >= maxSamples {
		c.samples = slices.Delete(c.samples, 0, 1)
	}
	c.samples = append(c.samples, sample{received, received.Sub(at)})
	return c.least()
}

func (c *clock) least() time.Duration {
	return slices.MinFunc(c.samples, func(a, b sample) int { return cmp.Compare(a.offset, b.offset) }).offset
}

// ahead is how far the node's clock is before the observer's, as far as recent pushes show it.
func (c *clock) ahead() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.samples) == 0 {
		return 0
	}
	return -c.least()
}
