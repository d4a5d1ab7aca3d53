package flows

import (
	"context"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

var (
	rows = flag.Int("rows", 100_000, "reports that the benchmark stores")
	span = flag.Duration("span", 0, "time in which they come; 0: 10,000 in a second")
)

// cluster is one of 200 nodes, 1,000 workloads and 10,000 pods. Each workload calls five others.
type cluster struct {
	rand      *rand.Rand
	pods      [][]*observerapi.End // by workload
	decisions []*observerapi.Decision
}

const (
	clusterNodes, namespaces, workloads, replicas, callees = 200, 50, 20, 10, 5
	batchRecords                                           = 250 // 50 per second for 5 seconds
)

func newCluster() *cluster {
	c := &cluster{rand: rand.New(rand.NewPCG(1, 1))}
	for w := range namespaces * workloads {
		var pods []*observerapi.End
		namespace, name := fmt.Sprint("team-", w/workloads), fmt.Sprint("service-", w%workloads)
		for p := range replicas {
			id := w*replicas + p
			pods = append(pods, &observerapi.End{
				Namespace: namespace, Pod: fmt.Sprintf("%s-6d4b9-%05x", name, id), UID: fmt.Sprintf("0f5e9a1c-0000-4000-8000-%012d", id), Node: fmt.Sprint("node-", id%clusterNodes),
				Workload: &agentapi.Workload{Kind: "Deployment", Name: name}, Labels: map[string]string{"app": name, "pod-template-hash": "6d4b9", "team": namespace},
				NamespaceLabels: map[string]string{"kubernetes.io/metadata.name": namespace}, NamedPorts: []observerapi.NamedPort{{Name: "http", Protocol: "TCP", Number: 8080}},
				Address: netip.AddrFrom4([4]byte{10, 50, byte(id >> 8), byte(id)}),
			})
		}
		c.pods = append(c.pods, pods)
		c.decisions = append(c.decisions, &observerapi.Decision{Verdict: observerapi.Allowed, Reason: "policy", Tier: "NetworkPolicy",
			Policy: &agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: namespace, Name: name}, Rules: []int32{0}}})
	}
	return c
}

// batch is what one node pushes: half of the reports are of callers, half of callees.
func (c *cluster) batch(sequence uint64, node int, at time.Time) store.Batch {
	b := store.Batch{Node: fmt.Sprint("node-", node), Generation: "g", Sequence: sequence, Received: at}
	for range batchRecords {
		source := c.rand.IntN(len(c.pods))
		destination := (source*7 + c.rand.IntN(callees)*131 + 1) % len(c.pods)
		first := at.Add(-time.Duration(c.rand.IntN(5000)) * time.Millisecond)
		r := store.Report{
			First: first, Last: first, Source: c.pods[source][c.rand.IntN(replicas)], Destination: c.pods[destination][c.rand.IntN(replicas)],
			Protocol: "TCP", Port: 8080, Decision: c.decisions[source], Connections: 1 + c.rand.Uint64N(20), Bytes: 60,
		}
		if c.rand.IntN(2) == 0 {
			r.Direction, r.Decision = store.Ingress, c.decisions[destination]
		}
		b.Reports = append(b.Reports, r)
	}
	return b
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkDay stores a day of reports, asks with cold caches, and rolls all of it up. It prints the figures of docs/performance.md.
func BenchmarkDay(b *testing.B) {
	ctx, dir := context.Background(), b.TempDir()
	limits := store.Limits{Age: 48 * time.Hour, ExactAge: 48 * time.Hour, Bytes: 1 << 40, Addresses: 1000}
	open := func() *sqlite.Store {
		s, err := sqlite.Open(dir, limits, logr.Discard())
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	for b.Loop() {
		s, c := open(), newCluster()
		batches := *rows / batchRecords
		during := *span
		if during == 0 {
			during = time.Duration(*rows) * time.Second / 10_000
		}
		begin := time.Now().Add(-during)
		var together []store.Batch
		before := cpuTime()
		for i := range batches {
			together = append(together, c.batch(uint64(i/clusterNodes+1), i%clusterNodes, begin.Add(during/time.Duration(batches)*time.Duration(i))))
			if len(together) == 8 || i == batches-1 {
				if err := s.Put(ctx, together); err != nil {
					b.Fatal(err)
				}
				together = nil
			}
		}
		spent := cpuTime() - before
		status, err := s.Status(ctx)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(spent.Microseconds())/float64(status.Reports), "µs/record")
		b.ReportMetric(float64(status.Bytes)/float64(status.Reports), "B/record")
		b.ReportMetric(float64(status.Reports), "records")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		ask(b, dir, open)
		rollUp(ctx, b, dir)
	}
}

// rollUp makes everything too old to be exact.
func rollUp(ctx context.Context, b *testing.B, dir string) {
	s, err := sqlite.Open(dir, store.Limits{Age: 1000 * time.Hour, ExactAge: time.Hour, Bytes: 1 << 40, Addresses: 1000}, logr.Discard())
	if err != nil {
		b.Fatal(err)
	}
	before := cpuTime()
	if err := s.Retain(ctx, time.Now().Add(48*time.Hour)); err != nil {
		b.Fatal(err)
	}
	status, err := s.Status(ctx)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric((cpuTime() - before).Seconds(), "rollup-cpu-s")
	b.ReportMetric(float64(status.Bytes), "B-rolled-up")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// ask measures questions about the day, each with an empty cache.
func ask(b *testing.B, dir string, open func() *sqlite.Store) {
	ctx := context.Background()
	day := Query{Since: time.Now().Add(-25 * time.Hour)}
	for _, q := range []struct {
		name string
		ask  func(*Flows, *access.View) (int, error)
	}{
		{"edges", func(f *Flows, v *access.View) (int, error) {
			edges, _, err := f.Edges(ctx, v, day)
			return len(edges), err
		}},
		{"workload", func(f *Flows, v *access.View) (int, error) {
			q, n := day, 0
			q.Newest, q.Namespace, q.Workload = true, "team-7", "service-3"
			_, err := f.Scan(ctx, v, q, func(*observerapi.Flow) bool { n++; return n < 1000 })
			return n, err
		}},
		{"hits", func(f *Flows, v *access.View) (int, error) {
			q := day
			q.Policy = agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "team-7", Name: "service-3"}
			hits, _, err := f.Hits(ctx, v, q)
			return len(hits), err
		}},
	} {
		dropCaches(b, dir)
		s := open()
		f := New(Options{Store: s, Nodes: func() []string { return nil }, Agents: func() []ingest.Agent { return nil }})
		began, cpu := time.Now(), cpuTime()
		n, err := q.ask(f, access.Everything())
		if err != nil || n == 0 {
			b.Fatal(q.name, n, err)
		}
		b.ReportMetric(time.Since(began).Seconds(), q.name+"-s")
		b.ReportMetric((cpuTime() - cpu).Seconds(), q.name+"-cpu-s")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// dropCaches makes the kernel forget what it has read of the files.
func dropCaches(b *testing.B, dir string) {
	unix.Sync()
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = file.Close() }()
		return unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}); err != nil {
		b.Fatal(err)
	}
}
