package dataplane_test

import (
	"encoding/binary"
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// portUnreachable is the ICMP message for a UDP datagram to a port without a listener.
func portUnreachable(from, to netip.AddrPort) []byte {
	udp := make([]byte, 8)
	binary.BigEndian.PutUint16(udp[0:], from.Port())
	binary.BigEndian.PutUint16(udp[2:], to.Port())
	binary.BigEndian.PutUint16(udp[4:], 8)
	if from.Addr().Is6() {
		ip := append([]byte{0x60, 0, 0, 0, 0, 8, unix.IPPROTO_UDP, 64}, from.Addr().AsSlice()...)
		return append(append(append([]byte{1, 4, 0, 0, 0, 0, 0, 0}, ip...), to.Addr().AsSlice()...), udp...) // the kernel fills in the checksum
	}
	ip := append([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}, from.Addr().AsSlice()...)
	ip = append(ip, to.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(ip[10:], checksum(0, ip))
	message := append(append([]byte{3, 3, 0, 0, 0, 0, 0, 0}, ip...), udp...)
	binary.BigEndian.PutUint16(message[2:], checksum(0, message))
	return message
}

// sendICMP sends from a pod, as another if one is given.
func sendICMP(t testing.TB, p *netnstest.Pod, to netip.Addr, message []byte, as ...netip.Addr) {
	t.Helper()
	p.Do(func() error {
		family, protocol := unix.AF_INET, unix.IPPROTO_ICMP
		if to.Is6() {
			family, protocol = unix.AF_INET6, unix.IPPROTO_ICMPV6
		}
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		for _, a := range as {
			if err := unix.Bind(fd, sockaddr(a, 0)); err != nil {
				return err
			}
		}
		return unix.Sendto(fd, message, 0, sockaddr(to, 0))
	})
}

// isTold reports whether an ICMP error reaches a connected socket.
func isTold(t testing.TB, c net.Conn, within time.Duration) bool {
	t.Helper()
	check(t, c.SetReadDeadline(time.Now().Add(within)))
	_, err := c.Read(make([]byte, 64))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatal(err)
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// An ICMP error belongs to a flow if it comes from one of its ends, or from a router.
func TestICMPErrorsThatAreForged(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	attacker, victim, server := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	n.Sysctl("ipv4/conf/"+attacker.Host.Attrs().Name+"/rp_filter", "0")
	n.set(attacker, isolate(policy.Egress))
	n.set(victim, isolate(policy.Ingress))
	n.set(server, isolate(policy.Ingress, with(pods(victim), port(policy.UDP, 53, 54))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		to := netip.AddrPortFrom(server.Addr(v6), map[bool]uint16{false: 53, true: 54}[v6])
		client, _ := live(t, victim, server, "udp", to, to.Port())
		own := client.LocalAddr().(*net.UDPAddr).AddrPort()

		sendICMP(t, attacker, own.Addr(), portUnreachable(netip.AddrPortFrom(own.Addr(), own.Port()^1), to))
		if isTold(t, client, netnstest.Silence) {
			t.Error("an error about no flow came through")
		}
		sendICMP(t, attacker, own.Addr(), portUnreachable(own, to))
		if isTold(t, client, netnstest.Silence) {
			t.Error("an error about a flow came through from a pod that has no part in it")
		}
		for _, another := range []netip.Addr{server.Addr(v6), netip.MustParseAddr(map[bool]string{false: "198.51.100.7", true: "2001:db8::7"}[v6])} {
			claim(t, attacker, another)
			before := denied(t, n.d)[events.ReasonSpoofed]
			sendICMP(t, attacker, own.Addr(), portUnreachable(own, to), another)
			if isTold(t, client, netnstest.Silence) {
				t.Errorf("an error about a flow came through from a pod as %v", another)
			}
			if got := denied(t, n.d)[events.ReasonSpoofed] - before; got != 1 {
				t.Errorf("%d errors as %v were counted as spoofed", got, another)
			}
		}
		sendICMP(t, server, own.Addr(), portUnreachable(own, to))
		if !isTold(t, client, netnstest.Patience) {
			t.Error("an error of the flow's server did not come through")
		}
		before := denied(t, n.d)
		sendICMP(t, victim, to.Addr(), portUnreachable(to, own))
		if after := denied(t, n.d); !maps.Equal(after, before) {
			t.Errorf("an error of the flow's client was refused: %v, before %v", after, before)
		}
	})
}
