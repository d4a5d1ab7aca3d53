package httpserver

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
)

// served starts a server on a loopback address of this process's own and returns its address.
func served(t *testing.T, limits Limits, h http.Handler) string {
	t.Helper()
	pid := os.Getpid()
	own := netip.AddrFrom4([4]byte{127, byte(128 + pid>>16&127), byte(pid >> 8), byte(pid)})
	l, err := Listen(netip.AddrPortFrom(own, 0).String(), limits)
	if err != nil {
		t.Fatal(err)
	}
	server := newServer(Options{Name: "test", Handler: h, Log: logr.Discard()})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return l.Addr().String()
}

// dialer connects from the source of a number.
func dialer(source int) *net.Dialer {
	from := net.IPv4(127, 1, byte(source>>8), byte(source))
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: 10 * time.Second}
}

// get requests a path on a connection of its own, from a source.
func get(addr, path string, source int, limit time.Duration) (status int, body string, err error) {
	client := http.Client{Timeout: limit, Transport: &http.Transport{DialContext: dialer(source).DialContext, DisableKeepAlives: true}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://" + addr + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return res.StatusCode, string(b), err
}

// hostile are the ways in which a connection can cost a server more than it should. Each ends when the server ends the connection.
var hostile = map[string]func(c net.Conn){
	"idle": func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) },
	"slow": func(c net.Conn) {
		for _, b := range []byte("GET /metrics HTTP/1.1\r\nHost: x\r\nX-Slow: " + strings.Repeat("a", 1000)) {
			if _, err := c.Write([]byte{b}); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	},
	"endless header": func(c net.Conn) {
		_, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\nX-A: "))
		for chunk := bytes.Repeat([]byte("a"), 64<<10); err == nil; {
			_, err = c.Write(chunk)
		}
	},
	"many headers": func(c net.Conn) {
		_, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\n"))
		for i := 0; err == nil; i++ {
			_, err = fmt.Fprintf(c, "X-%d: a\r\n", i)
		}
	},
	"endless body": func(c net.Conn) {
		_, err := c.Write([]byte("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000000\r\n\r\n"))
		for chunk := make([]byte, 64<<10); err == nil; {
			_, err = c.Write(chunk)
		}
	},
	"chunks without end": func(c net.Conn) {
		_, err := c.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"))
		for err == nil {
			_, err = c.Write([]byte("1\r\na\r\n"))
		}
	},
	"reads nothing": func(c net.Conn) { // and asks on and on
		_ = c.(*net.TCPConn).SetReadBuffer(4 << 10)
		for {
			if _, err := c.Write([]byte("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
				return
			}
		}
	},
}

// big is a registry with a page of about a megabyte.
func big() prometheus.Gatherer {
	r := prometheus.NewRegistry()
	v := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "big"}, []string{"label"})
	for i := range 10000 {
		v.WithLabelValues(fmt.Sprintf("%080d", i)).Set(1)
	}
	r.MustRegister(v)
	return r
}

// TestHostileConnections holds thousands of connections of every kind at once, from many sources. Meanwhile a kubelet and Prometheus, from one address
// each, must be answered, and the server's memory must stay bounded. How long the answers take is logged: this machine may be busy with other work.
func TestHostileConnections(t *testing.T) {
	checks := RunChecks(t.Context(), map[string]healthz.Checker{"ping": healthz.Ping})
	mux := http.NewServeMux()
	mux.Handle(PathMetrics, NewMetrics(big()))
	probes := Probes(checks, checks)
	mux.Handle("/", probes)
	addr := served(t, Limits{}, mux)
	const sources = 100
	before := memory()
	startHostileClients(t, addr, sources)
	deadline := time.Now().Add(12 * time.Second) // connections that were slow for 5 s, and readers that were for 10, come to their end
	peak := uint64(0)
	var took []time.Duration
	for time.Now().Before(deadline) {
		for _, path := range []string{PathLive, PathReady, PathMetrics} {
			begun := time.Now()
			if status, _, err := get(addr, path, sources+1, 10*time.Second); err != nil || status != http.StatusOK {
				t.Errorf("request %d: %s: %d, %v after %v", len(took), path, status, err, time.Since(begun))
			}
			took = append(took, time.Since(begun))
		}
		peak = max(peak, memory())
		time.Sleep(100 * time.Millisecond)
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d connections, %d answers: median %v, slowest %v; %d MiB before, %d MiB at most", hostileConnections, len(took), median, took[len(took)-1],
		before>>20, peak>>20)
	if most := before + 64<<20; peak > most {
		t.Errorf("%d MiB are in use, more than %d", peak>>20, most>>20)
	}
}

// hostileTarget is the environment variable that makes the test's program a client of the server that it names, followed by the number of sources.
const hostileTarget = "KIDOBAN_TEST_HOSTILE_TARGET"

// startHostileClients starts the connections in a process of their own, as pods are: what is measured here is the server's.
func startHostileClients(t *testing.T, addr string, sources int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHostileClients$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %d", hostileTarget, addr, sources))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out.Len() > 0 {
			t.Errorf("the clients report:\n%s", &out)
		}
	})
}

// TestHostileClients is the process of the clients. On its own it has no server to connect to.
func TestHostileClients(t *testing.T) {
	var addr string
	var sources int
	if _, err := fmt.Sscan(os.Getenv(hostileTarget), &addr, &sources); err != nil {
		return
	}
	var clients sync.WaitGroup
	for n := 0; n < hostileConnections; {
		for _, behave := range hostile {
			source := n % sources
			n++
			clients.Go(func() {
				for { // a connection that was ended comes again
					c, err := dialer(source).Dial("tcp4", addr)
					if errors.Is(err, syscall.EMFILE) {
						t.Error(err)
						return
					}
					if err == nil {
						behave(c)
						_ = c.Close()
					}
					time.Sleep(time.Second)
				}
			})
		}
	}
	clients.Wait()
}

func memory() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// Each connection ends by a limit, also while no other displaces it.
func TestEachHostileConnectionEnds(t *testing.T) {
	checks := RunChecks(t.Context(), map[string]healthz.Checker{"ping": healthz.Ping})
	mux := http.NewServeMux()
	mux.Handle(PathMetrics, NewMetrics(big()))
	mux.Handle("/", Probes(checks, checks))
	addr := served(t, Limits{}, mux)
	for name, behave := range hostile {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := dialer(1).Dial("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.Close() }()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				behave(c)
			}()
			select {
			case <-ended:
			case <-time.After(WriteTime + headerTime + 10*time.Second):
				t.Error("the connection still stands")
			}
		})
	}
}

func TestHeadersOfUpTo8KiB(t *testing.T) {
	addr := served(t, Limits{}, ok)
	for size, want := range map[int]int{7 << 10: http.StatusOK, 9 << 10: http.StatusRequestHeaderFieldsTooLarge} {
		c, err := dialer(1).Dial("tcp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: %s\r\n\r\n", strings.Repeat("a", size)); err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || res.StatusCode != want {
			t.Errorf("a header of %d bytes: %v, %v, want %d", size, res, err, want)
		}
		_ = c.Close()
	}
}

// The limits hold for what the server has not closed yet, and a new connection displaces the oldest of the source that has the most.
func TestNewConnectionsDisplaceTheGreediest(t *testing.T) {
	l, err := Listen("127.0.0.1:0", Limits{Connections: 4, PerSource: 3, Rate: 1e6})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	var served []net.Conn
	dial := func(source int) net.Conn {
		c, err := dialer(source).Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	connect := func(source int) net.Conn {
		c := dial(source)
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		served = append(served, s)
		return c
	}
	stands := func(c net.Conn) bool {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		_, err := c.Read(make([]byte, 1))
		return errors.Is(err, os.ErrDeadlineExceeded)
	}
	check := func(conns map[net.Conn]bool) {
		t.Helper()
		for c, want := range conns {
			if got := stands(c); got != want {
				t.Errorf("the connection of %v stands: %t, want %t", c.LocalAddr(), got, want)
			}
		}
	}
	a1, a2, a3 := connect(1), connect(1), connect(1)
	a4 := connect(1) // beyond the source's
	check(map[net.Conn]bool{a1: false, a2: true, a3: true, a4: true})
	b1 := connect(2)
	c1 := connect(3) // beyond the total
	check(map[net.Conn]bool{a2: false, a3: true, a4: true, b1: true, c1: true})
	d1 := connect(4)
	e1 := connect(5) // all have one: the oldest goes
	check(map[net.Conn]bool{a3: false, a4: false, b1: true, c1: true, d1: true, e1: true})
	// The server has closed none of them. It gets no more than four times the limit until it has.
	for len(served) < 16 {
		connect(6 + len(served))
	}
	waits := dial(30)
	accepted := make(chan net.Conn, 1)
	go func() {
		for {
			s, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- s
		}
	}()
	if stands(waits) {
		t.Error("another connection stands")
	}
	for _, s := range served {
		_ = s.Close()
	}
	dial(31)
	select {
	case s := <-accepted:
		_ = s.Close()
	case <-time.After(10 * time.Second):
		t.Error("no connection is accepted after the server has closed all")
	}
}

func TestSourcesOfConnections(t *testing.T) {
	for addr, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "::ffff:10.0.0.1": "10.0.0.1/32", "fd00:1:2:3::5": "fd00:1:2:3::/64", "fd00:1:2:3:4::5": "fd00:1:2:3::/64",
	} {
		if got := sourceOf(&net.TCPAddr{IP: net.ParseIP(addr)}).String(); got != want {
			t.Errorf("%s: %s, want %s", addr, got, want)
		}
	}
}
