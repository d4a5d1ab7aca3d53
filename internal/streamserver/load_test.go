package streamserver

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/kidoban/kidoban/internal/stream"
)

// A registry may have the metrics of an earlier server.
func TestTwoServersHaveTheSameMetrics(t *testing.T) {
	o := Options{Flag: "--stream-bind-address", Address: "127.0.0.1:0", Registry: prometheus.NewRegistry(), Log: logr.Discard()}
	var servers []*Server
	for range 2 {
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.listener.Close() }()
		servers = append(servers, s)
	}
	if servers[0].metrics.refused != servers[1].metrics.refused {
		t.Error("the second server's metrics are not registered")
	}
	o.Registry = prometheus.NewRegistry()
	o.Registry.MustRegister(prometheus.NewCounter(prometheus.CounterOpts{Name: "kidoban_controller_streams", Help: "another"}))
	if s, err := New(o); err == nil {
		t.Errorf("%v serves without metrics", s.Addr())
	}
}

// An agent that announces without end is slowed down, and another agent's messages are not.
func TestTenThousandAnnouncements(t *testing.T) {
	f := newFixture(t, map[string]string{"uid-1": "n1", "uid-2": "n2"})
	hostile, err := f.open(f.dial(), fakeToken("n1", "uid-1", "good"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := f.open(f.dial(), fakeToken("n2", "uid-2", "good"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	begin := time.Now()
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			m := &stream.SandboxAdded{Uid: fmt.Sprint(i), Namespace: "shop", Name: "web", Addresses: [][]byte{{10, 0, 0, 1}}}
			if hostile.Send(&stream.AgentMessage{Message: &stream.AgentMessage_SandboxAdded{SandboxAdded: m}}) != nil {
				return
			}
		}
	})
	eventually(t, func() error {
		if n := f.handler.messages("n1"); n < messageBurst {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	for i := range 20 {
		sent := time.Now()
		if err := other.Send(&stream.AgentMessage{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() error {
			if n := f.handler.messages("n2"); n <= i {
				return fmt.Errorf("%d messages", n)
			}
			return nil
		})
		if took := time.Since(sent); took > time.Second {
			t.Errorf("the other agent's message was passed on after %s", took)
		}
	}
	n, most := f.handler.messages("n1"), messageBurst+int(messageRate*time.Since(begin).Seconds())+1
	if n > most {
		t.Errorf("%d announcements were passed on, more than %d", n, most)
	}
	cancel()
	f.server.EndPod("n1", "uid-1") // ends a Send that waits
	wg.Wait()
	_ = hostile.CloseSend()
}

const (
	addressEnv = "KIDOBAN_TEST_STREAM_ADDRESS"
	rootEnv    = "KIDOBAN_TEST_STREAM_ROOT"
	countEnv   = "KIDOBAN_TEST_STREAM_COUNT"
)

// A thousand streams need 100 MiB at most: BenchmarkMemory measures them, and this is a fifth.
func TestMemoryOfStreams(t *testing.T) {
	if address := os.Getenv(addressEnv); address != "" {
		openStreams(t, address)
		return
	}
	const n = 200
	if used := memoryOf(t, n); used > 100<<20*n/1000 {
		t.Errorf("%d streams take %.1f MiB", n, float64(used)/(1<<20))
	}
}

func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(memoryOf(b, 1000))/(1<<20), "MiB")
	}
}

// memoryOf returns what a server needs for streams. The agents are another process.
func memoryOf(t testing.TB, n int) int64 {
	t.Helper()
	agents := map[string]string{}
	for i := range n {
		agents[fmt.Sprint("uid-", i)] = fmt.Sprint("n", i)
	}
	f := newFixture(t, agents)
	certificate, err := f.server.options.Certificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	before := memory()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestMemoryOfStreams$")
	cmd.Env = append(os.Environ(), addressEnv+"="+f.server.Addr().String(), countEnv+"="+strconv.Itoa(n),
		rootEnv+"="+string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate[0]})))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, out.String())
		}
	}()
	eventually(t, func() error {
		f.handler.mu.Lock()
		defer f.handler.mu.Unlock()
		if have := len(f.handler.connected); have < n {
			return fmt.Errorf("%d streams", have)
		}
		return nil
	})
	return memory() - before
}

// memory is what the process uses of heap and stacks.
func memory() int64 {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// openStreams opens a stream from each of many addresses and keeps them until standard input ends.
func openStreams(t *testing.T, address string) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(os.Getenv(rootEnv))) {
		t.Fatal("there is no certificate")
	}
	n, err := strconv.Atoi(os.Getenv(countEnv))
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, roots: roots, address: address}
	for i := range n {
		from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, byte(1+i/250), byte(1+i%250))}}
		conn := f.dial(grpc.WithContextDialer(func(ctx context.Context, to string) (net.Conn, error) { return from.DialContext(ctx, "tcp", to) }))
		if _, err := f.open(conn, fakeToken(fmt.Sprint("n", i), fmt.Sprint("uid-", i), "good")); err != nil {
			t.Fatal(err)
		}
	}
	_, _ = bufio.NewReader(os.Stdin).ReadByte()
}
