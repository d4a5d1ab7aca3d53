//go:build postgres

package postgres_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/observer/postgres"
	"github.com/kidoban/kidoban/internal/observer/store/storetest"
)

// benchTime is how long each number of replicas stores.
const benchTime = 20 * time.Second

// BenchmarkReplicas stores as much as one replica can, and as two can, into one database on the same machine. Beside the ratio it reports the
// CPU time of a record in the replicas: where the server has cores of its own, as many replicas store as much as these allow.
func BenchmarkReplicas(b *testing.B) {
	s := newServer(b)
	for b.Loop() {
		one, cpu := storedPerSecond(b, s.database(b), 1)
		two, _ := storedPerSecond(b, s.database(b), 2)
		b.ReportMetric(one, "one-records/s")
		b.ReportMetric(two, "two-records/s")
		b.ReportMetric(two/one, "two÷one")
		b.ReportMetric(cpu, "µs/record")
	}
}

func storedPerSecond(b *testing.B, database string, replicas int) (perSecond, micros float64) {
	b.Helper()
	var group sync.WaitGroup
	counts := make([]int, replicas)
	before, began := cpuTime(), time.Now()
	for replica := range replicas {
		s, err := postgres.Open(b.Context(), database, storetest.Large, logr.Discard())
		if err != nil {
			b.Fatal(err)
		}
		defer func() {
			if err := s.Close(); err != nil {
				b.Error(err)
			}
		}()
		group.Go(func() {
			world := storetest.NewWorld(uint64(replica), 20, 10, 10)
			for sequence := uint64(1); time.Since(began) < benchTime; sequence++ {
				batches := world.Batches(time.Now(), time.Second, 8, 250)
				for i := range batches {
					batches[i].Node, batches[i].Generation, batches[i].Sequence = fmt.Sprint("node-", replica, "-", i), "g", sequence
					counts[replica] += len(batches[i].Reports)
				}
				if err := s.Put(b.Context(), batches); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	total := 0
	for _, n := range counts {
		total += n
	}
	return float64(total) / time.Since(began).Seconds(), (cpuTime() - before).Seconds() * 1e6 / float64(total)
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
