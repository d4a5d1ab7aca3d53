package reach_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/reach"
)

func TestTargetIsReadAsWritten(t *testing.T) {
	for _, s := range []string{"tcp/10.0.0.1:80", "udp/[2001:db8::1]:53"} {
		target, err := reach.ParseTarget(s)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.Marshal(reach.Result{Target: target, Outcome: reach.Open})
		if err != nil {
			t.Fatal(err)
		}
		var r reach.Result
		if err := json.Unmarshal(b, &r); err != nil {
			t.Fatal(err)
		}
		if r.Target.String() != s {
			t.Errorf("%s became %s", s, r.Target)
		}
	}
	for _, s := range []string{"", "10.0.0.1:80", "sctp/10.0.0.1:80", "tcp/10.0.0.1", "tcp/example.org:80"} {
		if target, err := reach.ParseTarget(s); err == nil {
			t.Errorf("%q was taken for %v", s, target)
		}
	}
}

func TestDialTellsHowItWent(t *testing.T) {
	port := startServer(t, "database-0")
	silent := silentPort(t)
	closed := closedPort(t)
	for _, tc := range []struct {
		target string
		port   uint16
		want   reach.Outcome
		server string
	}{
		{"tcp/127.0.0.1", port, reach.Open, "database-0"},
		{"tcp/[::1]", port, reach.Open, "database-0"},
		{"udp/127.0.0.1", port, reach.Open, "database-0"},
		{"udp/[::1]", port, reach.Open, "database-0"},
		{"tcp/127.0.0.1", closed, reach.Refused, ""},
		{"udp/127.0.0.1", closed, reach.Refused, ""},
		{"udp/127.0.0.1", silent, reach.TimedOut, ""},
	} {
		within := time.Minute
		if tc.want == reach.TimedOut {
			within = time.Second
		}
		r := reach.Dial(t.Context(), parse(t, tc.target, tc.port), within)
		if r.Outcome != tc.want || r.Server != tc.server {
			t.Errorf("%s: %s from %q (%s), want %s from %q", r.Target, r.Outcome, r.Server, r.Error, tc.want, tc.server)
		}
	}
}

func TestWatchHoldsAConnectionUntilTheServerGoes(t *testing.T) {
	serving, stop := context.WithCancel(t.Context())
	port := startServerUntil(t, serving, "a")
	target := parse(t, "tcp/127.0.0.1", port)

	var mu sync.Mutex
	var held []reach.Outcome
	dialled := 0
	enough, ended := make(chan struct{}), make(chan struct{})
	hasEnough := sync.OnceFunc(func() { close(enough) })
	w := reach.Watch{
		Dial: []reach.Target{target}, Hold: []reach.Target{target},
		Interval: time.Millisecond, Timeout: time.Minute,
		Report: func(r reach.Result) {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case !r.Held && r.Outcome == reach.Open:
				dialled++
			case r.Held:
				held = append(held, r.Outcome)
				if r.Outcome != reach.Open {
					close(ended)
				}
			}
			if len(held) >= 5 && dialled > 0 {
				hasEnough()
			}
		},
	}
	watching, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { w.Run(watching); close(done) }()
	<-enough
	stop()
	<-ended
	cancel()
	<-done
	if i := slices.IndexFunc(held, func(o reach.Outcome) bool { return o != reach.Open }); i != len(held)-1 {
		t.Errorf("held connection went on after it failed: %v", held)
	}
}

func parse(t *testing.T, host string, port uint16) reach.Target {
	t.Helper()
	target, err := reach.ParseTarget(host + ":0")
	if err != nil {
		t.Fatal(err)
	}
	target.Address = netip.AddrPortFrom(target.Address.Addr(), port)
	return target
}

func startServer(t *testing.T, name string) uint16 { return startServerUntil(t, t.Context(), name) }

// startServerUntil answers on a port of both protocols until ctx or the test ends.
func startServerUntil(t *testing.T, ctx context.Context, name string) uint16 {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	for {
		port := freePort(t)
		server := reach.Server{Name: name, TCP: []uint16{port}, UDP: []uint16{port}}
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- server.Serve(ctx, func() { close(ready) }) }()
		select {
		case <-ready:
		case err := <-done:
			if errors.Is(err, syscall.EADDRINUSE) { // another process was quicker, or has it for UDP
				continue
			}
			stop()
			t.Fatal(err)
		}
		t.Cleanup(func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		return port
	}
}

// closedPort is one that refuses what comes from 127.0.0.1, of both protocols, and that no other process can have: it is bound for TCP, which does
// not listen, and for UDP, which is connected elsewhere.
func closedPort(t *testing.T) uint16 {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	address, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := address.(*syscall.SockaddrInet4).Port
	udp, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 9})
	if errors.Is(err, syscall.EADDRINUSE) {
		return closedPort(t)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	return uint16(port)
}

// silentPort is a UDP port without a listener.
func silentPort(t *testing.T) uint16 {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return netip.MustParseAddrPort(conn.LocalAddr().String()).Port()
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// A SYN that finds the server's queue full is dropped, and the kernel sends it again.
func TestDialCountsTheFirstPackets(t *testing.T) {
	port := startServer(t, "database-0")
	for _, protocol := range []string{"tcp", "udp"} {
		r := reach.Dial(t.Context(), parse(t, protocol+"/127.0.0.1", port), time.Second)
		if r.Answered != 1 {
			t.Errorf("%s: packet %d was answered: %+v", protocol, r.Answered, r)
		}
	}

	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	full := parse(t, "tcp/127.0.0.1", uint16(name.(*syscall.SockaddrInet4).Port))
	first, err := net.Dial("tcp", full.Address.String())
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	results := make(chan reach.Result, 1)
	go func() { results <- reach.Dial(t.Context(), full, 10*time.Second) }()
	time.AfterFunc(500*time.Millisecond, func() { // the first SYN is gone by then
		for range 2 {
			accepted, _, err := syscall.Accept(fd)
			if err != nil {
				return
			}
			_, _ = syscall.Write(accepted, []byte("late\n"))
		}
	})
	if r := <-results; r.Answered < 2 || r.Server != "late" {
		t.Errorf("%+v", r)
	}
}
