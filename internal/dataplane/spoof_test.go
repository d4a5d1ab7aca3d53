package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// inbox takes in what comes to a UDP port of a pod, of both families, whether it can be answered or not.
func inbox(t testing.TB, p *netnstest.Pod, port uint16) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	p.Do(func() error {
		var err error
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// sendAs sends from an address that it gives itself.
func sendAs(t testing.TB, p *netnstest.Pod, source netip.Addr, to netip.AddrPort) {
	t.Helper()
	sendFrom(t, p, netip.AddrPortFrom(source, 0), to)
}

func sendFrom(t testing.TB, p *netnstest.Pod, source netip.AddrPort, to netip.AddrPort) {
	t.Helper()
	claim(t, p, source.Addr())
	p.Do(func() error {
		c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(source)}).Dial("udp", to.String())
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("from " + source.String()))
		_ = c.Close()
		return err
	})
}

// claim gives a pod an address that is not its own.
func claim(t testing.TB, p *netnstest.Pod, addr netip.Addr) {
	t.Helper()
	if addr == p.Addr(addr.Is6()) || addr.Zone() != "" {
		return
	}
	lo, err := p.Link.LinkByName("lo")
	check(t, err)
	if addrs, err := p.Link.AddrList(lo, 0); err != nil || !hasAddress(addrs, addr) {
		check(t, err)
		p.AddAddress(lo, netip.PrefixFrom(addr, addr.BitLen()).String())
	}
}

// arrives reports whether a datagram from source comes in.
func arrives(t testing.TB, c *net.UDPConn, source netip.Addr, within time.Duration) bool {
	t.Helper()
	check(t, c.SetReadDeadline(time.Now().Add(within)))
	for {
		_, from, err := c.ReadFromUDPAddrPort(make([]byte, 64))
		if err != nil {
			return false
		}
		if from.Addr().Unmap() == source {
			return true
		}
	}
}

// A pod cannot pass for another, nor escape its own policies by an address that no pod has.
func TestSpoofedSources(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	for _, v6 := range []bool{false, true} {
		n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/rp_filter", "0")
		in := inbox(t, b, map[bool]uint16{false: 53, true: 54}[v6])
		to := netip.AddrPortFrom(b.Addr(v6), uint16(in.LocalAddr().(*net.UDPAddr).Port))
		unowned := netip.MustParseAddr(map[bool]string{false: "172.31.0.1", true: "fd99::1"}[v6])

		n.set(a, isolate(policy.Egress, with(pods(b))))
		n.set(b, isolate(policy.Ingress, with(pods(a, c))))
		n.set(c)
		before := denied(t, n.d)[events.ReasonSpoofed]
		for _, source := range []netip.Addr{c.Addr(v6), unowned} {
			sendAs(t, a, source, to)
			if arrives(t, in, source, netnstest.Silence) {
				t.Errorf("a packet from a's interface with the source %v passed", source)
			}
		}
		if got := denied(t, n.d)[events.ReasonSpoofed] - before; got != 2 {
			t.Errorf("%d spoofed packets were counted, want 2", got)
		}
		for _, honest := range pods(a, c) {
			sendAs(t, honest, honest.Addr(v6), to)
			if !arrives(t, in, honest.Addr(v6), netnstest.Patience) {
				t.Errorf("an honest packet from %v was refused", honest.Addr(v6))
			}
		}

		// A node that only audits refuses nothing.
		n.audit(a)
		n.set(b)
		sendAs(t, a, unowned, to)
		if !arrives(t, in, unowned, netnstest.Patience) {
			t.Errorf("a spoofed packet of a pod that is only audited was refused")
		}
	}
}

// A pod's packet may come in by another interface than the pod's own, as security groups for pods have it.
func TestAPodsPacketMayComeInByAnotherInterface(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b, trunk := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.9", "fd09::9")
	n.Sysctl("ipv4/conf/"+trunk.Host.Attrs().Name+"/rp_filter", "0")
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		in := inbox(t, b, 53)
		defer func() { _ = in.Close() }()
		sendAs(t, trunk, a.Addr(v6), netip.AddrPortFrom(b.Addr(v6), 53))
		if !arrives(t, in, a.Addr(v6), netnstest.Patience) {
			t.Error("it was refused")
		}
	})
}

// A pod that knows all of another's live flow can put a datagram into it, since established packets are not
// looked at: that is documented. It learns nothing by it, and neither opens a flow nor gets an answer.
func TestForgedPacketsOfALiveFlow(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	attacker, victim, server := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	n.Sysctl("ipv4/conf/"+attacker.Host.Attrs().Name+"/rp_filter", "0")
	n.set(attacker, isolate(policy.Egress))
	n.set(victim)
	n.set(server, isolate(policy.Ingress, with(pods(victim))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		to := netip.AddrPortFrom(server.Addr(v6), map[bool]uint16{false: 53, true: 54}[v6])
		client, serverEnd := live(t, victim, server, "udp", to, to.Port())
		if !push(t, serverEnd, client, netnstest.Patience) {
			t.Fatal("the flow does not work")
		}
		own := client.LocalAddr().(*net.UDPAddr).AddrPort()
		in := serverEnd.(pusher).UDPConn
		before := denied(t, n.d)[events.ReasonSpoofed]

		sendFrom(t, attacker, netip.AddrPortFrom(own.Addr(), own.Port()^1), to)
		sendFrom(t, attacker, own, netip.AddrPortFrom(to.Addr(), to.Port()+100))
		if arrives(t, in, own.Addr(), netnstest.Silence) {
			t.Error("a forged packet beside the flow passed")
		}
		if got := denied(t, n.d)[events.ReasonSpoofed] - before; got != 2 {
			t.Errorf("%d forged packets were counted, want 2", got)
		}
		sendFrom(t, attacker, own, to)
		if !arrives(t, in, own.Addr(), netnstest.Patience) {
			t.Error("a forged packet of the flow was refused: the documentation says that it passes")
		}
		if !push(t, serverEnd, client, netnstest.Patience) {
			t.Error("the answer does not go to the victim")
		}
	})
}

// tcpSegment is a segment without data, with the checksum that conntrack asks for.
func tcpSegment(source, destination netip.AddrPort, sequence uint32, flags byte) []byte {
	b := make([]byte, 20)
	binary.BigEndian.PutUint16(b[0:], source.Port())
	binary.BigEndian.PutUint16(b[2:], destination.Port())
	binary.BigEndian.PutUint32(b[4:], sequence)
	b[12], b[13] = 5<<4, flags
	binary.BigEndian.PutUint16(b[14:], 1024)
	sum := uint32(unix.IPPROTO_TCP + len(b))
	binary.BigEndian.PutUint16(b[16:], checksum(sum, source.Addr().AsSlice(), destination.Addr().AsSlice(), b))
	return b
}

// checksum is the Internet's (RFC 1071), of parts of even length and a sum that they are added to.
func checksum(sum uint32, parts ...[]byte) uint16 {
	for _, part := range parts {
		for i := 0; i < len(part); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(part[i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// Of a TCP connection the attacker would have to know the window as well: what lies outside belongs to no
// flow, and is refused as spoofed.
func TestForgedSegmentsOfALiveConnection(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	attacker, victim, server := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	n.Sysctl("ipv4/conf/"+attacker.Host.Attrs().Name+"/rp_filter", "0")
	n.set(attacker)
	n.set(victim)
	n.set(server, isolate(policy.Ingress, with(pods(victim))))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		to := netip.AddrPortFrom(server.Addr(v6), map[bool]uint16{false: 53, true: 54}[v6])
		client, serverEnd := live(t, victim, server, "tcp", to, to.Port())
		own := client.LocalAddr().(*net.TCPAddr).AddrPort()
		claim(t, attacker, own.Addr())
		before := denied(t, n.d)[events.ReasonSpoofed]
		for i, flags := range []byte{0x10, 0x04, 0x14, 0x01} { // ACK, RST, RST-ACK, FIN
			segment := tcpSegment(own, to, uint32(i)<<30+0x12345678, flags)
			attacker.Do(func() error {
				family := unix.AF_INET
				if v6 {
					family = unix.AF_INET6
				}
				fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
				if err != nil {
					return err
				}
				defer func() { _ = unix.Close(fd) }()
				if err := unix.Bind(fd, sockaddr(own.Addr(), 0)); err != nil {
					return err
				}
				return unix.Sendto(fd, segment, 0, sockaddr(to.Addr(), 0))
			})
		}
		if got := denied(t, n.d)[events.ReasonSpoofed] - before; got < 3 {
			t.Errorf("%d of 4 forged segments were refused", got)
		}
		if !push(t, client, serverEnd, netnstest.Patience) || !push(t, serverEnd, client, netnstest.Patience) {
			t.Error("the connection broke")
		}
	})
}

// An address of the link is no pod's: none gets past the node with it, whether the program sees the packet
// (IPv4) or the kernel does not even route it (IPv6).
func TestLinkLocalSources(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/rp_filter", "0")
	n.set(a, isolate(policy.Egress))
	n.set(b)
	in := inbox(t, b, 53)
	eth0, err := a.Link.LinkByName("eth0")
	check(t, err)
	check(t, a.Link.AddrAdd(eth0, &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP("fe80::7"), Mask: net.CIDRMask(128, 128)}, Flags: unix.IFA_F_NODAD}))
	for _, source := range []string{"169.254.7.7", "fe80::7%eth0"} {
		addr := netip.MustParseAddr(source)
		sendAs(t, a, addr, netip.AddrPortFrom(b.Addr(addr.Is6()), 53))
		if arrives(t, in, addr.WithZone(""), netnstest.Silence) {
			t.Errorf("a packet from %v passed", addr)
		}
	}
	if got := denied(t, n.d)[events.ReasonSpoofed]; got != 1 {
		t.Errorf("%d packets were counted as spoofed, want the one of IPv4", got)
	}
}
