package ingest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/flow"
	"github.com/kidoban/kidoban/internal/observer/directory"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/stream"
)

const (
	loadNodes, podsPerNode = 200, 50
	perBatch               = 250 // 50 records a second for 5 seconds
	// loadBatches is what each node pushes in a run: ten minutes of the load.
	loadBatches = 120
)

// BenchmarkLoad receives the records of 200 nodes over TLS, 50 a second each, faster than real time, and stores them in SQLite. The agents
// are in the same process: its CPU time and memory are more than an observer's. cores is what 10,000 records a second take.
func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		f := loaded(b)
		var group sync.WaitGroup
		before, began := processTime(), time.Now()
		for node := range loadNodes {
			group.Go(func() { pushLoad(b, f, node) })
		}
		group.Wait()
		records := float64(loadNodes * loadBatches * perBatch)
		spent := processTime() - before
		b.ReportMetric(spent.Seconds()/records*1e6, "µs/record")
		b.ReportMetric(spent.Seconds()/records*10_000, "cores")
		b.ReportMetric(records/time.Since(began).Seconds(), "records/s")
		b.ReportMetric(peakMemory(b)/(1<<20), "MiB-peak")
		b.StopTimer()
		f.kill()
		b.StartTimer()
	}
}

// loaded is an observer of a cluster with 200 nodes and 10,000 pods.
func loaded(b *testing.B) *fixture {
	b.Helper()
	d := directory.New()
	for node := range loadNodes {
		name := fmt.Sprint("n", node)
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: nodeAddress(node).String()}}
		d.SetNode(n)
		d.SetPod(newPod(namespace, "agent-"+name, name, "", stream.AgentServiceAccount, begin), begin)
		for pod := range podsPerNode {
			p := newPod(fmt.Sprint("team-", pod%20), fmt.Sprintf("service-%d-%d", pod, node), name, podAddress(node, pod).String(), "default", begin)
			p.UID = types.UID(fmt.Sprintf("0f5e9a1c-%04d-4000-8000-%012d", node, pod))
			d.SetPod(p, begin)
		}
	}
	s, err := sqlite.Open(b.TempDir(), store.Limits{Age: 7 * 24 * time.Hour, ExactAge: 24 * time.Hour, Bytes: 4 << 30, Addresses: 10_000}, logr.Discard())
	if err != nil {
		b.Fatal(err)
	}
	f := &fixture{t: b, store: s, directory: d}
	f.start(s, logr.Discard())
	return f
}

func nodeAddress(node int) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 1, byte(node)}) }

func podAddress(node, pod int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 50, byte(node), byte(pod + 1)})
}

// pushLoad pushes what one node has seen: half of its records are of its pods' outgoing connections.
func pushLoad(b *testing.B, f *fixture, node int) {
	name := fmt.Sprint("n", node)
	random := rand.New(rand.NewPCG(uint64(node), 1))
	from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(node))}} // the connections of an address are limited
	conn, err := grpc.NewClient(f.server.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			return from.DialContext(ctx, "tcp", address)
		}))
	if err != nil {
		b.Error(err)
		return
	}
	defer func() { _ = conn.Close() }()
	s := f.open(conn, agentClaims(name).token())
	at := time.Now().Add(-loadBatches * 5 * time.Second)
	for sequence := range uint64(loadBatches) {
		at = at.Add(5 * time.Second)
		r := &flow.PushRequest{Generation: "g", Sequence: sequence + 1, Sent: time.Now().UnixMilli(), Until: at.UnixMilli()}
		for range perBatch {
			pod := random.IntN(podsPerNode)
			own, peer := podAddress(node, pod).String(), podAddress((node+1+random.IntN(20))%loadNodes, (pod*7+random.IntN(5))%podsPerNode).String()
			when := at.Add(-time.Duration(random.IntN(5000)) * time.Millisecond)
			record := record(flow.Record_EGRESS, flow.Record_ALLOW, "policy", own, peer, 8080, 1+random.Uint64N(20), when)
			if random.IntN(2) == 0 {
				record.Direction, record.Source, record.Destination = flow.Record_INGRESS, record.Destination, record.Source
				record.Source.Port, record.Destination.Port = 41000, 8080
			}
			record.Policy = &flow.Rule{Policy: &flow.Policy{Kind: "NetworkPolicy", Namespace: fmt.Sprint("team-", pod%20), Name: "policy"}, Indexes: []int32{0}}
			r.Records = append(r.Records, record)
		}
		if err := push1(s, r); err != nil {
			b.Error(err)
			return
		}
	}
	if err := s.CloseSend(); err != nil {
		b.Error(err)
	}
}

func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakMemory is the largest resident set of the process so far, in bytes.
func peakMemory(b *testing.B) float64 {
	b.Helper()
	file, err := os.Open("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kilobytes, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			if err != nil {
				b.Fatal(err)
			}
			return kilobytes * 1024
		}
	}
	b.Fatal("the kernel reports no peak")
	return 0
}
