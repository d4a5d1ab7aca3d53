package pairing

import (
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// patience is how long a flow waits for the report of the other end's node before it is shown with one side.
	patience = 15 * time.Second
	// memory is how long what was shown with one side is remembered, so that the other side does not show it again.
	memory = 5 * time.Minute
	// maxLive bounds what waits. Beyond it all is shown or forgotten.
	maxLive = 200_000
)

// Live makes flows of reports as they arrive, each connection once. It is used by one goroutine.
type Live struct {
	kinds    kinds
	variants variants
	waiting  map[kind]*liveEnds
	size     int
}

type liveEnds struct{ egress, ingress []livePart }

type livePart struct {
	part
	arrived time.Time
	shown   bool
}

// NewLive returns a Live without reports.
func NewLive() *Live { return &Live{kinds: kinds{}, waiting: map[kind]*liveEnds{}} }

// Add returns the flows that reports complete. The reports are shared and must not change.
func (l *Live) Add(reports []store.Report, now time.Time) []*observerapi.Flow {
	groups := map[kind][]*store.Report{}
	for i := range reports {
		k := l.kinds.of(&reports[i])
		groups[k] = append(groups[k], &reports[i])
	}
	c := collector{}
	for k, group := range groups {
		w := l.waiting[k]
		if w == nil {
			w = &liveEnds{}
		}
		for _, p := range audit(group, &l.variants) {
			l.add(c, k, w, p, now)
		}
		if len(w.egress)+len(w.ingress) > 0 {
			l.waiting[k] = w
		} else {
			delete(l.waiting, k)
		}
	}
	if l.size > maxLive {
		l.tick(c, now.Add(memory), now)
	}
	return c.flows()
}

func (l *Live) add(c collector, k kind, w *liveEnds, p part, now time.Time) {
	isEgress := p.Direction == store.Egress
	if isEgress && (p.decision.Verdict == observerapi.Denied || !isPod(p.Destination)) {
		collect(c, k, &p, nil, p.connections, p.bytes)
		return
	}
	if !isEgress && !isPod(p.Source) {
		collect(c, k, nil, &p, p.connections, p.bytes)
		return
	}
	own, others := &w.egress, &w.ingress
	if !isEgress {
		own, others = others, own
	}
	for i := range *others {
		o := &(*others)[i]
		if p.connections == 0 {
			break
		}
		if !near(p.Report, o.Report, Tolerance) {
			continue
		}
		n := min(p.connections, o.connections)
		bytes, otherBytes := p.take(n), o.take(n)
		switch {
		case o.shown:
		case isEgress:
			collect(c, k, &p, &o.part, n, bytes)
		default:
			collect(c, k, &o.part, &p, n, otherBytes)
		}
	}
	before := len(*others)
	*others = slices.DeleteFunc(*others, func(o livePart) bool { return o.connections == 0 })
	l.size -= before - len(*others)
	if p.connections > 0 {
		*own = append(*own, livePart{part: p, arrived: now})
		l.size++
	}
}

// Tick returns the flows of which the other end's node has not reported in time. It is called about once a second.
func (l *Live) Tick(now time.Time) []*observerapi.Flow {
	c := collector{}
	l.tick(c, now, now.Add(-patience))
	return c.flows()
}

// tick shows what arrived before a time, and forgets what has been remembered long enough.
func (l *Live) tick(c collector, now, showBefore time.Time) {
	for k, w := range l.waiting {
		for i := range w.egress {
			if p := &w.egress[i]; !p.shown && p.arrived.Before(showBefore) {
				collect(c, k, &p.part, nil, p.connections, p.bytes)
				p.shown = true
			}
		}
		for i := range w.ingress {
			if p := &w.ingress[i]; !p.shown && p.arrived.Before(showBefore) {
				collect(c, k, nil, &p.part, p.connections, p.bytes)
				p.shown = true
			}
		}
		before := len(w.egress) + len(w.ingress)
		isOld := func(p livePart) bool { return p.shown && now.Sub(p.arrived) >= memory }
		w.egress, w.ingress = slices.DeleteFunc(w.egress, isOld), slices.DeleteFunc(w.ingress, isOld)
		after := len(w.egress) + len(w.ingress)
		l.size -= before - after
		if after == 0 {
			delete(l.waiting, k)
		}
	}
}

// collect adds to a flow of the span of the source's report, or of the only one.
func collect(c collector, k kind, egress, ingress *part, connections, bytes uint64) {
	of := egress
	if of == nil {
		of = ingress
	}
	c.add(k, egress, ingress, connections, bytes, of.First.Truncate(store.Exact), store.Exact)
}
