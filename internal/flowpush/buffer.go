package flowpush

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/kidoban/kidoban/internal/flow"
)

// Reasons of a Loss.
const (
	lossMap     = "map"
	lossQueue   = "queue"
	lossRestart = "restart"
)

// position is a batch, with the sums of all batches up to it.
type position struct {
	sequence         uint64
	records, packets uint64
	until            int64 // Unix milliseconds: the time that these batches are about ends
}

// interval is what lies between two positions.
type interval struct{ before, end position }

// batch is a PushRequest, without what depends on the replica: as bytes it takes a fifth of the memory.
type batch struct {
	data []byte
	interval
}

// batchOverhead is the memory of a batch besides its data.
const batchOverhead = 256

func (t *batch) size() int { return len(t.data) + batchOverhead }

// cursor is a replica's place in the buffer.
type cursor struct {
	confirmed position
	inFlight  []interval    // batches that were sent since and are not confirmed
	woken     chan struct{} // capacity 1
}

func (c *cursor) wake() {
	select {
	case c.woken <- struct{}{}:
	default:
	}
}

// orphan is the position of a replica that is gone. The replica that takes its place gets what that one had not confirmed.
type orphan struct {
	position
	since time.Time
}

// orphanFor is how long another replica may take to take the place of one that is gone.
const orphanFor = 5 * time.Minute

// buffer keeps batches until all replicas have confirmed them. Beyond its limit it drops the oldest ones. It may be used by several goroutines at
// the same time.
type buffer struct {
	limit   int // bytes
	metrics *metrics

	mu      sync.Mutex
	batches []*batch // in the order of their sequences, which have no gap
	bytes   int
	last    position // of the newest batch
	base    position // up to which batches were removed because all replicas had confirmed them
	cursors map[*cursor]struct{}
	orphans []orphan
}

func newBuffer(limit int, m *metrics) *buffer {
	return &buffer{limit: limit, metrics: m, cursors: map[*cursor]struct{}{}}
}

// begin sets the time since which there are records. A replica that never gets the first ones has lost them since then.
func (b *buffer) begin(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.last.until = at.UnixMilli()
	b.base = b.last
}

// add appends a batch, and gives it its sequence. until is when the time that it is about ends.
func (b *buffer) add(r *flow.PushRequest, until time.Time) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.Sequence = b.last.sequence + 1
	data, err := proto.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode a batch of records: %w", err)
	}
	t := &batch{data: data, interval: interval{before: b.last}}
	b.last.sequence, b.last.until = r.GetSequence(), until.UnixMilli()
	for _, record := range r.GetRecords() {
		b.last.records++
		b.last.packets += record.GetPackets()
	}
	t.end = b.last
	b.batches = append(b.batches, t)
	b.bytes += t.size()
	b.orphans = slices.DeleteFunc(b.orphans, func(o orphan) bool { return until.Sub(o.since) > orphanFor })
	b.trim()
	for b.bytes > b.limit && len(b.batches) > 0 {
		dropped := b.batches[0]
		b.metrics.lost.WithLabelValues(lossQueue).Add(float64(dropped.end.records - dropped.before.records))
		b.remove(1)
	}
	for c := range b.cursors {
		c.wake()
	}
	b.observe()
	return nil
}

// trim removes the batches that all replicas have confirmed.
func (b *buffer) trim() {
	if len(b.cursors)+len(b.orphans) == 0 {
		return
	}
	confirmed := b.last
	for c := range b.cursors {
		confirmed = earlier(confirmed, c.confirmed)
	}
	for _, o := range b.orphans {
		confirmed = earlier(confirmed, o.position)
	}
	if confirmed.sequence > b.base.sequence {
		b.base = confirmed
	}
	n := 0
	for n < len(b.batches) && b.batches[n].end.sequence <= b.base.sequence {
		n++
	}
	b.remove(n)
}

func earlier(p, q position) position {
	if q.sequence < p.sequence {
		return q
	}
	return p
}

func (b *buffer) remove(n int) {
	for _, t := range b.batches[:n] {
		b.bytes -= t.size()
	}
	b.batches = slices.Delete(b.batches, 0, n)
}

func (b *buffer) observe() { b.metrics.queued.Set(float64(b.bytes)) }

// join adds a replica. It begins where one that is gone has stopped, or else with what the others have not confirmed.
func (b *buffer) join() *cursor {
	b.mu.Lock()
	defer b.mu.Unlock()
	begin := b.base
	if len(b.orphans) > 0 {
		begin = b.orphans[0].position
		b.orphans = b.orphans[1:]
	}
	c := &cursor{confirmed: begin, woken: make(chan struct{}, 1)}
	b.cursors[c] = struct{}{}
	return c
}

// leave removes a replica.
func (b *buffer) leave(c *cursor, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.orphans = append(b.orphans, orphan{c.confirmed, now})
	delete(b.cursors, c)
}

// rewind makes a replica get again what it has not confirmed.
func (b *buffer) rewind(c *cursor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.inFlight = nil
	c.wake()
}

// maxInFlight is how many batches a replica may have without a confirmation.
const maxInFlight = 4

// take returns the batch that a replica gets next; nil: none, or enough are in flight. The batch has the loss of those before it that were
// dropped.
func (b *buffer) take(c *cursor, now time.Time) (*flow.PushRequest, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	has := c.confirmed
	if n := len(c.inFlight); n > 0 {
		has = c.inFlight[n-1].end
	}
	if len(c.inFlight) >= maxInFlight || has.sequence >= b.last.sequence || len(b.batches) == 0 {
		return nil, nil
	}
	first := b.batches[0].end.sequence
	t := b.batches[max(has.sequence+1, first)-first]
	r := &flow.PushRequest{}
	if err := proto.Unmarshal(t.data, r); err != nil {
		return nil, fmt.Errorf("decode a batch of records: %w", err)
	}
	r.Sent = now.UnixMilli()
	if t.before.sequence > has.sequence {
		r.Losses = append(r.Losses, &flow.Loss{
			Reason: lossQueue, Records: t.before.records - has.records, Packets: t.before.packets - has.packets, First: has.until, Last: t.before.until,
		})
	}
	c.inFlight = append(c.inFlight, interval{t.before, t.end})
	return r, nil
}

// confirm records that a replica has a batch and all those before it.
func (b *buffer) confirm(c *cursor, sequence uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(c.inFlight) > 0 && c.inFlight[0].end.sequence <= sequence {
		c.confirmed = c.inFlight[0].end
		b.metrics.pushed.Add(float64(c.confirmed.records - c.inFlight[0].before.records))
		c.inFlight = c.inFlight[1:]
	}
	c.wake()
	b.trim()
	b.observe()
}

// awaits reports whether a replica has batches without a confirmation.
func (b *buffer) awaits(c *cursor) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(c.inFlight) > 0
}

// isDone reports whether each replica has confirmed all batches.
func (b *buffer) isDone() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.cursors {
		if c.confirmed.sequence < b.last.sequence {
			return false
		}
	}
	return true
}
