package flows

import (
	"context"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Options of Flows.
type Options struct {
	Store store.Store
	// Nodes of the cluster, by name, and the Agents that are connected.
	Nodes  func() []string
	Agents func() []ingest.Agent
	// CertificateExpires is when the certificate of this replica expires.
	CertificateExpires func() time.Time
	Version            string
}

// Flows has what readers can ask for.
type Flows struct {
	options Options
	started time.Time
	live    live
}

// New returns Flows that start now.
func New(o Options) *Flows {
	f := &Flows{options: o, started: time.Now()}
	f.live.init()
	return f
}

// Stored passes batches, which the store has, to those that follow. It does not block for long.
func (f *Flows) Stored(batches []store.Batch) { f.live.stored(batches, time.Now()) }

// Run shows flows that wait for their other end, until the context is done.
func (f *Flows) Run(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			f.live.end()
			return
		case now := <-tick.C:
			f.live.tick(now)
		}
	}
}

// began is since when there is all that agents have pushed. Flows of earlier times are some of those that were late, or they are what is left
// of a time whose other flows were deleted.
func (f *Flows) began(stored store.Status) time.Time {
	if stored.Began.IsZero() {
		return f.started
	}
	return stored.Began
}

// coverage says how much of a span of time the store has.
func (f *Flows) coverage(ctx context.Context, since, until time.Time) (observerapi.Coverage, error) {
	status, err := f.options.Store.Status(ctx)
	if err != nil {
		return observerapi.Coverage{}, err
	}
	c := observerapi.Coverage{Since: since, Until: until, Resolution: int(store.Exact.Seconds())}
	if began := f.began(status); began.After(since) {
		c.CompleteSince = began
	}
	if !status.ExactSince.IsZero() && status.Since.Before(status.ExactSince) && since.Before(status.ExactSince) {
		c.Resolution = int(store.Hour.Seconds())
	}
	if c.Losses, err = f.options.Store.Losses(ctx, since, until); err != nil {
		return c, err
	}
	absent, err := f.absent(ctx, since, until)
	c.Losses = append(c.Losses, absent...)
	return c, err
}

// pushDelay is how old the newest records of a node can be that reports as it should.
const pushDelay = time.Minute

// absent returns the nodes that do not report, or did not yet.
func (f *Flows) absent(ctx context.Context, since, until time.Time) (out []observerapi.Loss, err error) {
	stored, err := f.options.Store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]store.Node{}
	for _, n := range stored {
		known[n.Name] = n
	}
	now := time.Now()
	if until.After(now) {
		until = now
	}
	for _, name := range f.options.Nodes() {
		n, ok := known[name]
		switch {
		case !ok:
			out = append(out, observerapi.Loss{Node: name, Reason: observerapi.LossAbsent, First: since, Last: until})
		case until.Sub(n.Last) > pushDelay:
			first := n.Last
			if since.After(first) {
				first = since
			}
			out = append(out, observerapi.Loss{Node: name, Reason: observerapi.LossAbsent, First: first, Last: until})
		}
	}
	return out, nil
}

// Rate of reports that arrive.
type rate struct {
	mu      sync.Mutex
	total   uint64
	seconds [60]uint64
	second  int64
}

func (r *rate) add(n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pass(now.Unix())
	r.total += uint64(n)
	r.seconds[r.second%60] += uint64(n)
}

// pass empties the seconds that have begun since the last call.
func (r *rate) pass(second int64) {
	if second-r.second >= int64(len(r.seconds)) {
		r.seconds = [60]uint64{}
	} else {
		for s := r.second + 1; s <= second; s++ {
			r.seconds[s%60] = 0
		}
	}
	r.second = max(r.second, second)
}

func (r *rate) read(now time.Time) (perSecond float64, total uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pass(now.Unix())
	var sum uint64
	for _, n := range r.seconds {
		sum += n
	}
	return float64(sum) / float64(len(r.seconds)), r.total
}
