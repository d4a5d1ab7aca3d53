package pairing

import (
	"container/heap"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// Tolerance is the distance in time between two reports of the same connections, beyond what is known of the nodes' clocks.
	Tolerance = 20 * time.Second
	// slack is how far from a span connections of its reports can be, and those of reports that match them.
	slack = Tolerance + 10*time.Second
)

// Stream makes flows of reports that come in the order of their spans, as a store returns them.
type Stream struct {
	oldest bool
	emit   func(*observerapi.Flow) bool

	kinds    kinds
	variants variants
	span     spanKey
	batch    []*store.Report // of span
	waiting  map[kind]*ends
	open     []spanKey // spans that are not final, in the order in which they came
	left     map[spanKey][]kind
	flows    map[spanKey]collector
	ready    ready
	stopped  bool
}

// spanKey is a span of reports.
type spanKey struct {
	begin      int64 // Unix nanoseconds
	resolution time.Duration
}

// ends are the parts of one kind that wait for the other end's.
type ends struct{ egress, ingress []waiting }

type waiting struct {
	part
	span spanKey
}

// NewStream returns a stream of reports that come with the oldest span first, or the newest. It calls emit with flows in the
// same order of their last connection, until emit returns false.
func NewStream(oldest bool, emit func(*observerapi.Flow) bool) *Stream {
	return &Stream{
		oldest: oldest, emit: emit, kinds: kinds{}, waiting: map[kind]*ends{}, left: map[spanKey][]kind{}, flows: map[spanKey]collector{},
		ready: ready{oldest: oldest},
	}
}

// Add adds a copy of a report. It returns false once emit has.
func (s *Stream) Add(r *store.Report) bool {
	if s.stopped {
		return false
	}
	key := spanKey{r.Span.UnixNano(), r.Resolution}
	if key != s.span {
		s.process()
		s.span = key
		s.pass()
	}
	c := *r
	s.batch = append(s.batch, &c)
	return !s.stopped
}

// Close emits the flows that are left.
func (s *Stream) Close() {
	s.process()
	for len(s.open) > 0 {
		s.finish()
	}
	s.release(func(*observerapi.Flow) bool { return true })
}

// process matches the reports of a span.
func (s *Stream) process() {
	if len(s.batch) == 0 {
		return
	}
	groups := map[kind][]*store.Report{}
	for _, r := range s.batch {
		k := s.kinds.of(r)
		groups[k] = append(groups[k], r)
	}
	s.batch = nil
	if !slices.Contains(s.open, s.span) {
		s.open = append(s.open, s.span)
	}
	for k, reports := range groups {
		s.match(k, audit(reports, &s.variants))
	}
}

func (s *Stream) match(k kind, parts []part) {
	if !s.oldest {
		slices.Reverse(parts)
	}
	w := s.waiting[k]
	if w == nil {
		w = &ends{}
	}
	for i := range parts {
		p := &parts[i]
		switch {
		case p.Direction == store.Egress && p.decision.Verdict == observerapi.Denied: // no packet came to the other end
			s.collect(s.span, k, p, nil, p.connections, p.bytes)
			continue
		case p.Direction == store.Egress:
			w.ingress = s.pair(k, p, w.ingress)
		default:
			w.egress = s.pair(k, p, w.egress)
		}
		if p.connections == 0 {
			continue
		}
		if p.Direction == store.Egress {
			w.egress = append(w.egress, waiting{*p, s.span})
		} else {
			w.ingress = append(w.ingress, waiting{*p, s.span})
		}
	}
	if len(w.egress)+len(w.ingress) == 0 {
		delete(s.waiting, k)
		return
	}
	s.waiting[k] = w
	s.left[s.span] = append(s.left[s.span], k)
}

// pair matches a part with those of the other end that wait, and returns those that still wait.
func (s *Stream) pair(k kind, p *part, others []waiting) []waiting {
	for i := range others {
		o := &others[i]
		if p.connections == 0 {
			break
		}
		if !near(p.Report, o.Report, Tolerance) {
			continue
		}
		n := min(p.connections, o.connections)
		bytes, otherBytes := p.take(n), o.take(n)
		// The flow is one of the source's span, which is final no earlier than either.
		if p.Direction == store.Egress {
			s.collect(s.span, k, p, &o.part, n, bytes)
		} else {
			s.collect(o.span, k, &o.part, p, n, otherBytes)
		}
	}
	return slices.DeleteFunc(others, func(o waiting) bool { return o.connections == 0 })
}

// pass makes final what no report that comes can match any more.
func (s *Stream) pass() {
	for len(s.open) > 0 && s.isPast(s.open[0]) {
		s.finish()
	}
	s.release(func(f *observerapi.Flow) bool {
		if s.oldest {
			return f.Last.UnixNano() < s.frontier()
		}
		return f.Last.UnixNano() > s.frontier()
	})
}

// isPast reports whether no report of the current span or of one after it can match one of an earlier span.
func (s *Stream) isPast(earlier spanKey) bool {
	if s.oldest {
		return s.span.begin > earlier.begin+int64(earlier.resolution+slack)
	}
	return s.span.begin+int64(s.span.resolution+slack) < earlier.begin
}

// frontier is a time before (the oldest first: after) which no flow that is not ready can have its last connection.
func (s *Stream) frontier() int64 {
	key := s.span
	if len(s.open) > 0 {
		key = s.open[0]
	}
	if s.oldest {
		return key.begin
	}
	return key.begin + int64(key.resolution+slack)
}

// finish makes the flows of the first open span: what still waits has one side.
func (s *Stream) finish() {
	key := s.open[0]
	s.open = s.open[1:]
	for _, k := range s.left[key] {
		w := s.waiting[k]
		if w == nil {
			continue
		}
		w.egress = s.drain(key, w.egress, func(p *part) { s.collect(key, k, p, nil, p.connections, p.bytes) })
		w.ingress = s.drain(key, w.ingress, func(p *part) { s.collect(key, k, nil, p, p.connections, p.bytes) })
		if len(w.egress)+len(w.ingress) == 0 {
			delete(s.waiting, k)
		}
	}
	delete(s.left, key)
	for _, f := range s.flows[key] {
		heap.Push(&s.ready, f)
	}
	delete(s.flows, key)
}

func (s *Stream) drain(key spanKey, all []waiting, final func(*part)) []waiting {
	return slices.DeleteFunc(all, func(w waiting) bool {
		if w.span != key {
			return false
		}
		final(&w.part)
		return true
	})
}

func (s *Stream) collect(key spanKey, k kind, egress, ingress *part, connections, bytes uint64) {
	c := s.flows[key]
	if c == nil {
		c = collector{}
		s.flows[key] = c
	}
	c.add(k, egress, ingress, connections, bytes, time.Unix(0, key.begin), key.resolution)
}

func (s *Stream) release(due func(*observerapi.Flow) bool) {
	for !s.stopped && len(s.ready.all) > 0 && due(s.ready.all[0]) {
		s.stopped = !s.emit(heap.Pop(&s.ready).(*observerapi.Flow))
	}
}

// ready are flows that are final, as a heap by their last connections.
type ready struct {
	all    []*observerapi.Flow
	oldest bool
}

func (r *ready) Len() int { return len(r.all) }
func (r *ready) Less(i, j int) bool {
	if r.oldest {
		return compareFlows(r.all[i], r.all[j]) < 0
	}
	return compareFlows(r.all[i], r.all[j]) > 0
}
func (r *ready) Swap(i, j int) { r.all[i], r.all[j] = r.all[j], r.all[i] }
func (r *ready) Push(x any)    { r.all = append(r.all, x.(*observerapi.Flow)) }
func (r *ready) Pop() any {
	last := r.all[len(r.all)-1]
	r.all = r.all[:len(r.all)-1]
	return last
}
