package dataplane_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// Three pods of one node, by real connections.
func TestConnections(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	for _, p := range pods(a, b, c) {
		for _, port := range []uint16{8079, 8080, 8083, 8084} {
			p.Echo("tcp", port)
			p.Echo("udp", port)
		}
	}
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 8080, 8083), port(policy.UDP, 8084))))
	n.set(c, isolate(policy.Egress, with(pods(a), port(policy.TCP, 8080))), isolate(policy.Ingress))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		addrA, addrB, addrC := a.Addr(v6), b.Addr(v6), c.Addr(v6)

		t.Run("a range of ports", func(t *testing.T) {
			reaches(t, a, "tcp", addrB, 8080)
			reaches(t, a, "tcp", addrB, 8083)
			isKept(t, a, "tcp", addrB, 8079)
			isKept(t, a, "tcp", addrB, 8084)
		})
		t.Run("another protocol", func(t *testing.T) {
			reaches(t, a, "udp", addrB, 8084)
			isKept(t, a, "udp", addrB, 8080)
		})
		t.Run("another peer", func(t *testing.T) {
			isKept(t, c, "tcp", addrB, 8080)
		})
		t.Run("replies to a pod without allowed ingress", func(t *testing.T) {
			reaches(t, c, "tcp", addrA, 8080)
		})
		t.Run("replies of a pod that may not open the same", func(t *testing.T) {
			reaches(t, b, "tcp", addrA, 8079)
			reaches(t, b, "udp", addrA, 8079)
		})
		t.Run("both ends must accept", func(t *testing.T) {
			isKept(t, a, "tcp", addrC, 8080) // ingress of c refuses, nothing of a does
			isKept(t, c, "tcp", addrA, 8083) // egress of c refuses
			isKept(t, c, "udp", addrA, 8080)
		})
		t.Run("another's protocol says nothing about ICMP", func(t *testing.T) {
			if ping(t, a, addrB, netnstest.Silence) {
				t.Error("a pinged b")
			}
			if !ping(t, b, addrA, netnstest.Patience) {
				t.Error("b did not ping a, which is not isolated")
			}
		})
	})
}

// ping sends an echo request and reports whether an answer comes.
func ping(t testing.TB, from *netnstest.Pod, to netip.Addr, within time.Duration) bool {
	t.Helper()
	family, protocol, request := unix.AF_INET, unix.IPPROTO_ICMP, byte(8)
	if to.Is6() {
		family, protocol, request = unix.AF_INET6, unix.IPPROTO_ICMPV6, 128
	}
	answered := false
	from.Do(func() error {
		if err := pingRange(); err != nil {
			return err
		}
		fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return fmt.Errorf("open a ping socket: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		// The kernel fills in identifier and checksum.
		if err := unix.Sendto(fd, []byte{request, 0, 0, 0, 0, 0, 0, 1}, 0, sockaddr(to, 0)); err != nil {
			return err
		}
		_, err = receive(fd, make([]byte, 64), within)
		answered = err == nil
		return nil
	})
	return answered
}

// receive goes on where a signal of Go's own interrupts it: on a socket with a time limit no system call is
// restarted.
func receive(fd int, buf []byte, within time.Duration) (n int, err error) {
	timeout := unix.NsecToTimeval(within.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return 0, err
	}
	for deadline := time.Now().Add(within); ; {
		if n, _, err = unix.Recvfrom(fd, buf, 0); !errors.Is(err, unix.EINTR) || time.Now().After(deadline) {
			return n, err
		}
	}
}

func sockaddr(a netip.Addr, port int) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4(), Port: port}
	}
	return &unix.SockaddrInet6{Addr: a.As16(), Port: port}
}

func TestFragments(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 53)
	b.Echo("udp", 54)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53))))
	n.set(a, isolate(policy.Ingress))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		if err := a.AskSize("udp", netip.AddrPortFrom(b.Addr(v6), 53), 4000, netnstest.Patience); err != nil {
			t.Errorf("4000 bytes to an allowed port and back: %v", err)
		}
		if err := a.AskSize("udp", netip.AddrPortFrom(b.Addr(v6), 54), 4000, netnstest.Silence); err == nil {
			t.Error("4000 bytes to a refused port and back")
		}
	})
}

// withOption opens a UDP connection whose packets all bear an IP option or an extension header.
func withOption(t testing.TB, from *netnstest.Pod, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := from.Dial("udp", to, netnstest.Patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		if to.Addr().Is4() {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IP, unix.IP_OPTIONS, "\x01\x01\x01\x01") // no operation, four times
			return
		}
		// destination options: next header (the kernel's), length, PadN of 4
		failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DSTOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
		if failed == nil {
			failed = unix.SetsockoptString(int(fd), unix.IPPROTO_IPV6, unix.IPV6_HOPOPTS, "\x00\x00\x01\x04\x00\x00\x00\x00")
		}
	}); err != nil || failed != nil {
		t.Fatalf("set options: %v, %v", err, failed)
	}
	return c
}

func TestOptionsAndExtensionHeaders(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 53)
	b.Echo("udp", 54)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53))))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		if err := netnstest.Exchange(withOption(t, a, netip.AddrPortFrom(b.Addr(v6), 53)), 8, netnstest.Patience); err != nil {
			t.Errorf("to an allowed port: %v", err)
		}
		if err := netnstest.Exchange(withOption(t, a, netip.AddrPortFrom(b.Addr(v6), 54)), 8, netnstest.Silence); err == nil {
			t.Error("a refused port was reached")
		}
		if n := denied(t, n.d)[events.ReasonUnparsable]; n != 0 {
			t.Errorf("%d packets were unparsable", n)
		}
	})
}

// A closed port's ICMP error reaches a pod without allowed ingress.
func TestICMPErrorsOfAllowedFlows(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a, isolate(policy.Ingress), isolate(policy.Egress, with(pods(b), port(policy.UDP, 53))))
	n.set(b, isolate(policy.Egress), isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53))))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		err := a.Ask("udp", netip.AddrPortFrom(b.Addr(v6), 53), netnstest.Patience)
		if !isRefused(err) {
			t.Errorf("a closed port answers with %v", err)
		}
	})
}

// A second router on the way has a smaller MTU, and tells the sender so through the first.
func TestPathMTUDiscovery(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, second := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.9", "fd09::9")
	second.Forward()
	b := second.AddPod("10.9.0.2", "fd09::2")
	n.RouteVia(b, second)
	second.SetRouteMTU(b, 1300)
	b.Echo("tcp", 80)
	n.set(a, isolate(policy.Ingress), isolate(policy.Egress, with(pods(b), port(policy.TCP, 80))))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		if err := a.AskSize("tcp", netip.AddrPortFrom(b.Addr(v6), 80), 200_000, netnstest.Patience); err != nil {
			t.Errorf("200 kB over a path of MTU 1300: %v", err)
		}
		if routes, err := a.Link.RouteGet(b.Addr(v6).AsSlice()); err != nil || len(routes) != 1 || routes[0].MTU != 1300 {
			t.Errorf("the sender was not told of the MTU 1300: %v, %v", routes, err)
		}
	})
}

// Until there is an answer, every packet of a flow is NEW to conntrack.
func TestAOneWayFlowIsJudgedOnce(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsAll})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		before := accepted(t, n.d)
		_, server := live(t, a, b, "udp", netip.AddrPortFrom(b.Addr(v6), 53), 53) // which does not answer by itself
		client, err := a.Dial("udp", netip.AddrPortFrom(b.Addr(v6), 53), netnstest.Patience)
		check(t, err)
		defer func() { _ = client.Close() }()
		for range 5 {
			if !push(t, client, server, netnstest.Patience) {
				t.Fatal("a packet did not arrive")
			}
		}
		if got := accepted(t, n.d) - before; got != 2 { // live's flow, and client's
			t.Errorf("2 flows were judged %d times", got)
		}
	})
}

// accepted is how often something was accepted.
func accepted(t testing.TB, d *dataplane.Dataplane) uint64 {
	t.Helper()
	counters, err := d.Counters()
	check(t, err)
	n := uint64(0)
	for _, c := range counters.Judged {
		if c.Verdict == events.Allow {
			n += c.Packets
		}
	}
	return n
}
