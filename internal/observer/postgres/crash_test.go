//go:build postgres

package postgres_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observer/postgres"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observer/store/storetest"
)

var begin = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// totals are numbers of what is stored.
type totals struct{ reports, connections, bytes uint64 }

func (n *totals) add(r *store.Report) {
	n.reports++
	n.connections += r.Connections
	n.bytes += r.Bytes
}

func (n *totals) addAll(batches []store.Batch) {
	for _, b := range batches {
		for i := range b.Reports {
			n.add(&b.Reports[i])
		}
	}
}

func scanned(t *testing.T, s store.Store) (n totals) {
	t.Helper()
	err := s.Scan(t.Context(), store.Query{Since: begin.Add(-time.Hour), Until: begin.Add(100 * time.Hour)}, func(r *store.Report) bool {
		n.add(r)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// summedUp are the totals of sums, less the number of reports.
func summedUp(t *testing.T, s store.Store) (n totals) {
	t.Helper()
	err := s.Sums(t.Context(), store.Query{Since: begin.Add(-time.Hour), Until: begin.Add(100 * time.Hour)}, func(r *store.Report) bool {
		n.add(r)
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	n.reports = 0
	return n
}

// pushUntilStored pushes batches as an observer does, whose agents push again what is not confirmed. It counts those that are stored.
func pushUntilStored(t *testing.T, s store.Store, batches []store.Batch, stored *atomic.Int64) {
	for _, b := range batches {
		for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			err := s.Put(ctx, []store.Batch{b})
			cancel()
			if err == nil {
				stored.Add(1)
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("batch %d of node %s is not stored: %v", b.Sequence, b.Node, err)
				return
			}
		}
	}
}

// Two replicas share a database whose server is killed while they push: each batch counts once.
func TestAServerThatIsKilledUnderLoad(t *testing.T) {
	s := newServer(t)
	place := database(s.database(t))
	replicas := []store.Store{place.Open(t, storetest.Large), place.Open(t, storetest.Large)}
	w := storetest.NewWorld(11, 2, 3, 3)
	batches := w.Batches(begin, 10*time.Minute, 200, 20)
	var want totals
	want.addAll(batches)

	for section := range slices.Chunk(batches, 70) {
		var pushes sync.WaitGroup
		var stored atomic.Int64
		for i, replica := range replicas {
			for half := range 2 {
				var own []store.Batch
				for j := range section {
					if (j%3 == i || j%3 == 2) && j%2 == half { // a third of them goes to both replicas
						own = append(own, section[j])
					}
				}
				pushes.Go(func() { pushUntilStored(t, replica, own, &stored) })
			}
		}
		eventually(t, "some are stored", func() bool { return stored.Load() > 5 })
		s.end(t, syscall.SIGKILL)
		s.start(t)
		pushes.Wait()
	}
	for _, replica := range replicas {
		if err := replica.Retain(t.Context(), begin.Add(10*time.Minute)); err != nil {
			t.Error(err)
		}
		if got := scanned(t, replica); got != want {
			t.Errorf("stored %+v, want %+v", got, want)
		}
		sums := want
		sums.reports = 0
		if got := summedUp(t, replica); got != sums {
			t.Errorf("summed up %+v, want %+v", got, sums)
		}
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Two replicas push, sum up, change parts and read at the same time. No number is lost and none counts twice.
func TestReplicasTogether(t *testing.T) {
	s := newServer(t)
	place := database(s.database(t))
	replicas := []store.Store{place.Open(t, storetest.Large), place.Open(t, storetest.Large)}
	w := storetest.NewWorld(12, 2, 3, 3)
	var hours [][]store.Batch
	var want totals
	for h := range 4 {
		b := w.Batches(begin.Add(time.Duration(h)*time.Hour), 30*time.Minute, 28, 20)
		for i := range b {
			b[i].Sequence += uint64(h * 100)
		}
		want.addAll(b)
		hours = append(hours, b)
	}
	var group sync.WaitGroup
	var stored atomic.Int64
	for i, replica := range replicas {
		group.Go(func() {
			for _, b := range hours {
				for j := range b {
					if j%2 == i || j%5 == 0 {
						pushUntilStored(t, replica, b[j:j+1], &stored)
					}
				}
			}
		})
		group.Go(func() {
			for h := range hours {
				if err := replica.Retain(t.Context(), begin.Add(time.Duration(h)*time.Hour)); err != nil {
					t.Error(err)
				}
				_ = summedUp(t, replica)
			}
		})
	}
	group.Wait()
	sums := want
	sums.reports = 0
	for _, replica := range replicas {
		if got := scanned(t, replica); got != want {
			t.Errorf("stored %+v, want %+v", got, want)
		}
		if got := summedUp(t, replica); got != sums {
			t.Errorf("summed up %+v, want %+v", got, sums)
		}
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A replica receives what each of them stores, once, also across a change of parts.
func TestFollow(t *testing.T) {
	s := newServer(t)
	place := database(s.database(t))
	one, two := place.Open(t, storetest.Large), place.Open(t, storetest.Large)
	w := storetest.NewWorld(14, 2, 2, 2)
	before := w.Batches(begin, time.Minute, 1, 10)[0]
	before.Generation = "before"
	if err := one.Put(t.Context(), []store.Batch{before}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var got totals
	received := func() totals {
		mu.Lock()
		defer mu.Unlock()
		return got
	}
	started := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		one.(*postgres.Store).Follow(ctx, func(batches []store.Batch) {
			mu.Lock()
			defer mu.Unlock()
			select {
			case <-started:
			default:
				close(started)
			}
			got.addAll(batches)
		})
	}()
	// What is stored before the first look is not received: store until something is, and then until all is.
	for i := uint64(1); ; i++ {
		b := w.Batches(begin, time.Minute, 1, 1)[0]
		b.Generation, b.Sequence = "first", i
		b.Reports[0].Connections, b.Reports[0].Bytes = 0, 0
		pushUntilStored(t, two, []store.Batch{b}, new(atomic.Int64))
		select {
		case <-started:
		case <-time.After(100 * time.Millisecond):
			continue
		}
		break
	}
	var want totals
	for h := range 3 {
		for i, replica := range []store.Store{one, two} {
			b := w.Batches(begin.Add(time.Duration(h)*time.Hour), 30*time.Minute, 14, 20)
			for j := range b {
				b[j].Generation, b[j].Sequence = string(rune('a'+i)), uint64(100*h)+b[j].Sequence
			}
			want.addAll(b)
			pushUntilStored(t, replica, b, new(atomic.Int64))
		}
		if err := two.Retain(t.Context(), begin.Add(time.Duration(h)*time.Hour)); err != nil {
			t.Error(err)
		}
	}
	// The first ones count nothing, and how many of them were received is not known.
	eventually(t, "all connections are received", func() bool { return received().connections >= want.connections })
	if got := received(); got.connections != want.connections || got.bytes != want.bytes {
		t.Errorf("received %+v, want %+v", got, want)
	}
	cancel()
	<-done
	for _, replica := range []store.Store{one, two} {
		if err := replica.Close(); err != nil {
			t.Error(err)
		}
	}
}
