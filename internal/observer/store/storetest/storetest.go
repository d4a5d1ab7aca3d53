package storetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Place is where a store keeps its content: a store that is opened there again has the content of the one before.
type Place interface {
	Open(t *testing.T, limits store.Limits) store.Store
}

// Large are limits that no test meets.
var Large = store.Limits{Age: 1000 * time.Hour, ExactAge: 1000 * time.Hour, Bytes: 1 << 40, Addresses: 1000}

var begin = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// all is the time of all reports of tests.
var all = store.Query{Since: begin.Add(-1000 * time.Hour), Until: begin.Add(1000 * time.Hour)}

// Run runs all tests. newPlace returns an empty place.
func Run(t *testing.T, newPlace func(t *testing.T) Place) {
	for name, test := range map[string]func(*testing.T, Place){
		"content":    testContent,
		"order":      testOrder,
		"again":      testAgain,
		"filters":    testFilters,
		"time":       testTime,
		"losses":     testLosses,
		"roll-up":    testRollUp,
		"age":        testAge,
		"bytes":      testBytes,
		"addresses":  testAddresses,
		"concurrent": testConcurrent,
	} {
		t.Run(name, func(t *testing.T) { test(t, newPlace(t)) })
	}
}

func put(t *testing.T, s store.Store, batches ...store.Batch) {
	t.Helper()
	if err := s.Put(t.Context(), batches); err != nil {
		t.Fatal(err)
	}
}

// numbers are those of reports by what they are about.
type numbers map[string][2]uint64

func (n numbers) add(r *store.Report, resolution time.Duration, source, destination any) {
	about, err := json.Marshal([]any{r.First.Truncate(resolution), r.Direction, source, destination, r.Service, r.Protocol, r.Port, r.Decision, r.Continues, r.Reply, r.Beside})
	if err != nil {
		panic(err)
	}
	old := n[string(about)]
	n[string(about)] = [2]uint64{old[0] + r.Connections, old[1] + r.Bytes}
}

// exact are the numbers of reports as Scan must return them.
func exact(batches []store.Batch) numbers {
	n := numbers{}
	for _, b := range batches {
		for i := range b.Reports {
			r := &b.Reports[i]
			n.add(r, store.Exact, r.Source, r.Destination)
		}
	}
	return n
}

// summed are the numbers of reports as Sums must return them, of hours.
func summed(batches []store.Batch) numbers {
	n := numbers{}
	for _, b := range batches {
		for i := range b.Reports {
			r := &b.Reports[i]
			n.add(r, store.Hour, store.Summary(r.Source), store.Summary(r.Destination))
		}
	}
	return n
}

func scan(t *testing.T, s store.Store, q store.Query) numbers {
	t.Helper()
	n, before := numbers{}, time.Time{}
	err := s.Scan(t.Context(), q, func(r *store.Report) bool {
		if !before.IsZero() && (q.Oldest && r.Span.Before(before) || !q.Oldest && r.Span.After(before)) {
			t.Errorf("a report of %s comes after one of %s", r.Span, before)
		}
		before = r.Span
		if r.First.Before(r.Span) || !r.First.Before(r.Span.Add(r.Resolution)) || r.Last.Before(r.First) {
			t.Errorf("span %s of %s: first %s, last %s", r.Span, r.Resolution, r.First, r.Last)
		}
		n.add(r, store.Exact, r.Source, r.Destination)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func sum(t *testing.T, s store.Store, q store.Query) numbers {
	t.Helper()
	n := numbers{}
	if err := s.Sums(t.Context(), q, func(r *store.Report) bool {
		n.add(r, store.Hour, r.Source, r.Destination)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	return n
}

func check(t *testing.T, what string, got, want numbers) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s (-want +got):\n%.4000s", what, cmp.Diff(want, got))
	}
}

func closeStore(t *testing.T, s store.Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func testContent(t *testing.T, p Place) {
	s := p.Open(t, Large)
	batches := NewWorld(1, 3, 4, 2).Batches(begin, time.Hour, 30, 40)
	put(t, s, batches...)
	check(t, "scan", scan(t, s, all), exact(batches))
	check(t, "sums", sum(t, s, all), summed(batches))
	oldest := all
	oldest.Oldest = true
	check(t, "scan, the oldest first", scan(t, s, oldest), exact(batches))
	seen := 0
	if err := s.Scan(t.Context(), all, func(*store.Report) bool { seen++; return seen < 5 }); err != nil || seen != 5 {
		t.Errorf("a scan that ends early: %d reports, %v", seen, err)
	}
	closeStore(t, s)
	s = p.Open(t, Large)
	defer closeStore(t, s)
	check(t, "scan after opening again", scan(t, s, all), exact(batches))
	check(t, "sums after opening again", sum(t, s, all), summed(batches))
	status, err := s.Status(t.Context())
	if err != nil || status.Reports < 1 || status.Bytes < 1 || status.Since.Before(begin) || status.Since.After(begin.Add(time.Minute)) || !status.Since.Equal(status.ExactSince) {
		t.Errorf("%+v, %v", status, err)
	}
}

// The order of pushes and their number make no difference.
func testOrder(t *testing.T, p Place) {
	s := p.Open(t, Large)
	w := NewWorld(2, 2, 3, 2)
	batches := w.Batches(begin, 10*time.Minute, 40, 10)
	shuffled := slices.Clone(batches)
	w.Rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for i := 0; i < len(shuffled); i += 4 {
		put(t, s, append(slices.Clone(shuffled[i:min(i+4, len(shuffled))]), shuffled[w.Rand.IntN(len(shuffled))])...)
	}
	check(t, "scan", scan(t, s, all), exact(batches))
	check(t, "sums", sum(t, s, all), summed(batches))
	closeStore(t, s)
}

// A batch counts once, also after the store was opened again. The same number of another node or generation is another batch.
func testAgain(t *testing.T, p Place) {
	batches := NewWorld(3, 2, 3, 2).Batches(begin, time.Minute, 3, 5)
	batches[1].Node, batches[1].Sequence, batches[2].Node, batches[2].Generation, batches[2].Sequence = batches[0].Node, 7, batches[0].Node, "h", batches[0].Sequence
	batches[0].Losses = []observerapi.Loss{{Node: batches[0].Node, Reason: "ring", Packets: 1, First: begin, Last: begin}}
	for range 3 {
		s := p.Open(t, Large)
		put(t, s, batches[0], batches[0])
		put(t, s, batches...)
		check(t, "scan", scan(t, s, all), exact(batches))
		check(t, "sums", sum(t, s, all), summed(batches))
		if losses, err := s.Losses(t.Context(), all.Since, all.Until); err != nil || len(losses) != 1 || losses[0].Packets != 1 {
			t.Errorf("losses: %v, %v", losses, err)
		}
		closeStore(t, s)
	}
}

// What a query leaves out does not match it. What matches is there.
func testFilters(t *testing.T, p Place) {
	s := p.Open(t, Large)
	defer closeStore(t, s)
	batches := NewWorld(4, 3, 4, 2).Batches(begin, time.Hour, 30, 40)
	put(t, s, batches...)
	of := func(e *observerapi.End, namespace, workload string) bool {
		return e.Namespace == namespace && (workload == "" || e.Workload != nil && e.Workload.Name == workload)
	}
	for name, tc := range map[string]struct {
		query   store.Query
		matches func(r *store.Report) bool
	}{
		"namespace": {store.Query{Namespace: "ns-1"}, func(r *store.Report) bool { return of(r.Source, "ns-1", "") || of(r.Destination, "ns-1", "") }},
		"workload":  {store.Query{Namespace: "ns-1", Workload: "app-2"}, func(r *store.Report) bool { return of(r.Source, "ns-1", "app-2") || of(r.Destination, "ns-1", "app-2") }},
		"policy":    {store.Query{Policy: store.Policy{Kind: "NetworkPolicy", Namespace: "ns-2", Name: "allow"}}, func(r *store.Report) bool { return policyOf(r.Decision) == "ns-2" }},
		"none":      {store.Query{Namespace: "other"}, func(*store.Report) bool { return false }},
		"no policy": {store.Query{Policy: store.Policy{Kind: "NetworkPolicy", Namespace: "ns-2", Name: "other"}}, func(*store.Report) bool { return false }},
	} {
		tc.query.Since, tc.query.Until = all.Since, all.Until
		var matching []store.Batch
		for _, b := range batches {
			b.Reports = slices.DeleteFunc(slices.Clone(b.Reports), func(r store.Report) bool { return !tc.matches(&r) })
			matching = append(matching, b)
		}
		filtered := func(read func(func(*store.Report) bool) error, resolution time.Duration) numbers {
			n := numbers{}
			if err := read(func(r *store.Report) bool {
				if tc.matches(r) {
					n.add(r, resolution, r.Source, r.Destination)
				}
				return true
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		check(t, name+", scan", filtered(func(yield func(*store.Report) bool) error { return s.Scan(t.Context(), tc.query, yield) }, store.Exact), exact(matching))
		check(t, name+", sums", filtered(func(yield func(*store.Report) bool) error { return s.Sums(t.Context(), tc.query, yield) }, store.Hour), summed(matching))
	}
}

func policyOf(d *observerapi.Decision) string {
	if d.Policy != nil {
		return d.Policy.Namespace
	}
	return d.IsolatedBy[0].Namespace
}

// Late reports are found by their own time, and bounds of queries are spans.
func testTime(t *testing.T, p Place) {
	s := p.Open(t, Large)
	defer closeStore(t, s)
	w := NewWorld(5, 2, 2, 2)
	var batches []store.Batch
	for i, offset := range []time.Duration{0, 3 * time.Hour, -2 * time.Hour, time.Hour, -30 * time.Minute} { // of reports, while pushes come each hour
		b := w.Batches(begin.Add(offset), 20*time.Minute, 1, 30)[0]
		b.Sequence, b.Received = uint64(i+1), begin.Add(time.Duration(i)*time.Hour)
		batches = append(batches, b)
		put(t, s, b)
	}
	check(t, "all", scan(t, s, all), exact(batches))
	for _, oldest := range []bool{true, false} {
		q := store.Query{Since: begin.Add(-20 * time.Minute), Until: begin.Add(65 * time.Minute), Oldest: oldest}
		want := slices.Clone(batches)
		for i := range want {
			want[i].Reports = slices.DeleteFunc(slices.Clone(want[i].Reports), func(r store.Report) bool {
				return r.First.Before(q.Since) || !r.First.Before(q.Until)
			})
		}
		check(t, fmt.Sprint("some, oldest first: ", oldest), scan(t, s, q), exact(want))
	}
}

func testLosses(t *testing.T, p Place) {
	s := p.Open(t, Large)
	defer closeStore(t, s)
	loss := func(node, reason string, first, last time.Duration, packets uint64) observerapi.Loss {
		return observerapi.Loss{Node: node, Reason: reason, First: begin.Add(first), Last: begin.Add(last), Packets: packets, Records: packets / 10}
	}
	put(t, s,
		store.Batch{Node: "a", Generation: "g", Sequence: 1, Received: begin, Losses: []observerapi.Loss{loss("a", "ring", 0, 5*time.Second, 10), loss("a", "queue", 0, 0, 1)}},
		store.Batch{Node: "a", Generation: "g", Sequence: 2, Received: begin.Add(time.Minute), Losses: []observerapi.Loss{loss("a", "ring", 6*time.Second, 9*time.Second, 20)}},
		store.Batch{Node: "b", Generation: "g", Sequence: 1, Received: begin.Add(time.Hour), Losses: []observerapi.Loss{loss("b", "ring", time.Hour, time.Hour, 5)}})
	got, err := s.Losses(t.Context(), begin.Add(-time.Minute), begin.Add(time.Minute))
	want := []observerapi.Loss{loss("a", "queue", 0, 0, 1), loss("a", "ring", 0, 9*time.Second, 30)}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	nodes, err := s.Nodes(t.Context())
	if err != nil || len(nodes) != 2 || nodes[0].Name != "a" || !nodes[0].First.Equal(begin) || !nodes[0].Last.Equal(begin.Add(time.Minute)) || nodes[1].Name != "b" {
		t.Errorf("%v, %v", nodes, err)
	}
}

// days pushes a batch per hour for hours.
func hours(t *testing.T, s store.Store, w *World, n, reports int) (batches []store.Batch) {
	t.Helper()
	for i := range n {
		b := w.Batches(begin.Add(time.Duration(i)*time.Hour), time.Hour-store.Exact, 1, reports)[0]
		b.Sequence = uint64(i + 1)
		batches = append(batches, b)
		put(t, s, b)
	}
	return batches
}

// Reports lose their pods when they are old enough, and no number.
func testRollUp(t *testing.T, p Place) {
	limits := Large
	limits.ExactAge = 3 * time.Hour
	s := p.Open(t, limits)
	batches := hours(t, s, NewWorld(6, 2, 2, 2), 8, 30)
	for range 2 {
		if err := s.Retain(t.Context(), begin.Add(8*time.Hour)); err != nil {
			t.Fatal(err)
		}
		check(t, "sums", sum(t, s, all), summed(batches))
		status, err := s.Status(t.Context())
		if err != nil || status.Since.After(begin.Add(time.Hour)) || status.ExactSince.Before(begin.Add(3*time.Hour)) || status.ExactSince.After(begin.Add(6*time.Hour)) {
			t.Errorf("%+v, %v", status, err)
		}
		resolutions := map[time.Duration]int{}
		if err := s.Scan(t.Context(), all, func(r *store.Report) bool {
			resolutions[r.Resolution]++
			if isOld := r.First.Before(status.ExactSince); isOld && r.Source.Pod != "" {
				t.Errorf("%s: %+v", r.First, r.Source)
			}
			return true
		}); err != nil || resolutions[store.Exact] == 0 || resolutions[store.Hour] == 0 {
			t.Errorf("%v, %v", resolutions, err)
		}
		put(t, s, batches...) // again
		check(t, "sums after pushing again", sum(t, s, all), summed(batches))
		closeStore(t, s)
		s = p.Open(t, limits)
	}
	closeStore(t, s)
}

func testAge(t *testing.T, p Place) {
	limits := Large
	limits.Age, limits.ExactAge = 4*time.Hour, 2*time.Hour
	s := p.Open(t, limits)
	defer closeStore(t, s)
	batches := hours(t, s, NewWorld(7, 2, 2, 2), 10, 10)
	if err := s.Retain(t.Context(), begin.Add(10*time.Hour)); err != nil {
		t.Fatal(err)
	}
	status, err := s.Status(t.Context())
	if err != nil || status.Since.Before(begin.Add(4*time.Hour)) || status.Since.After(begin.Add(7*time.Hour)) {
		t.Errorf("%+v, %v", status, err)
	}
	if status.Began.Before(begin.Add(4*time.Hour)) || status.Began.After(begin.Add(8*time.Hour)) {
		t.Errorf("all that was pushed since %s is said to be stored", status.Began)
	}
	check(t, "sums of the newest", sum(t, s, store.Query{Since: begin.Add(8 * time.Hour), Until: all.Until}), summed(batches[8:]))
}

// A store with too many bytes loses the oldest reports, and stores new ones.
func testBytes(t *testing.T, p Place) {
	limits := Large
	limits.Bytes = 3 << 20
	s := p.Open(t, limits)
	defer closeStore(t, s)
	w := NewWorld(8, 3, 10, 10)
	var last []store.Batch
	const minutes = 16
	for i := range minutes {
		last = w.Batches(begin.Add(time.Duration(i)*time.Minute), time.Minute, 7, 200)
		for j := range last {
			last[j].Sequence = uint64(i + 1)
		}
		put(t, s, last...)
		if err := s.Retain(t.Context(), begin.Add(time.Duration(i+1)*time.Minute)); err != nil {
			t.Fatal(err)
		}
		status, err := s.Status(t.Context())
		if err != nil || status.Bytes > limits.Bytes {
			t.Fatalf("minute %d: %+v, %v", i, status, err)
		}
	}
	if status, err := s.Status(t.Context()); err != nil || !status.ExactSince.After(begin.Add(time.Minute)) {
		t.Errorf("nothing was rolled up: %+v, %v", status, err)
	}
	newest := numbers{}
	if err := s.Scan(t.Context(), store.Query{Since: begin.Add((minutes - 1) * time.Minute), Until: all.Until}, func(r *store.Report) bool {
		if r.Resolution == store.Exact { // or of the same hour, and rolled up
			newest.add(r, store.Exact, r.Source, r.Destination)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	check(t, "the newest", newest, exact(last))
}

// Addresses beyond the limit are not stored, and their flows are.
func testAddresses(t *testing.T, p Place) {
	limits := Large
	limits.Addresses = 5
	s := p.Open(t, limits)
	defer closeStore(t, s)
	w := NewWorld(9, 1, 1, 1)
	b := store.Batch{Node: "a", Generation: "g", Sequence: 1, Received: begin}
	for _, end := range w.Outside {
		end.DomainNames = nil
		for range 2 {
			b.Reports = append(b.Reports, store.Report{First: begin, Last: begin, Source: w.Pods[0], Destination: end, Protocol: "TCP", Port: 443, Decision: w.Decisions[0], Connections: 1})
		}
	}
	put(t, s, b)
	addresses, unknown := map[string]uint64{}, uint64(0)
	if err := s.Scan(t.Context(), all, func(r *store.Report) bool {
		if r.Destination.Address.IsValid() {
			addresses[r.Destination.Address.String()] += r.Connections
		} else {
			unknown += r.Connections
		}
		return true
	}); err != nil || len(addresses) != 5 || unknown != 30 {
		t.Errorf("%v, %d without address, %v", addresses, unknown, err)
	}
}

// Readers see no half of a batch while others write and roll up.
func testConcurrent(t *testing.T, p Place) {
	limits := Large
	limits.ExactAge = 2 * time.Hour
	s := p.Open(t, limits)
	defer closeStore(t, s)
	const each = 20
	done := make(chan struct{})
	var group sync.WaitGroup
	for range 3 {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				n := map[time.Time]int{}
				if err := s.Scan(t.Context(), all, func(r *store.Report) bool {
					if r.Resolution == store.Exact {
						n[r.Span.Truncate(store.Hour)]++
					}
					return true
				}); err != nil {
					t.Error(err)
					return
				}
				for hour, reports := range n {
					if reports%each != 0 {
						t.Errorf("%s: %d reports", hour, reports)
					}
				}
				if err := s.Sums(t.Context(), all, func(*store.Report) bool { return true }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	w := NewWorld(10, 2, 2, 2)
	for i := range 10 {
		b := w.Batches(begin.Add(time.Duration(i)*time.Hour), store.Exact, 1, each)[0]
		b.Sequence = uint64(i + 1)
		put(t, s, b)
		if err := s.Retain(t.Context(), begin.Add(time.Duration(i)*time.Hour)); err != nil {
			t.Error(err)
		}
	}
	close(done)
	group.Wait()
}
