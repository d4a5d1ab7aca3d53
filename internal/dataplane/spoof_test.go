package dataplane_test

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
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
	if source != p.Addr(source.Is6()) {
		lo, err := p.Link.LinkByName("lo")
		check(t, err)
		if addrs, err := p.Link.AddrList(lo, 0); err != nil || !hasAddress(addrs, source) {
			check(t, err)
			p.AddAddress(lo, netip.PrefixFrom(source, source.BitLen()).String())
		}
	}
	p.Do(func() error {
		c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0))}).Dial("udp", to.String())
		if err != nil {
			return err
		}
		_, err = c.Write([]byte("from " + source.String()))
		_ = c.Close()
		return err
	})
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

// A pod cannot pass for another, nor escape its own policies by an address that is nobody's.
func TestSpoofedSources(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	for _, v6 := range []bool{false, true} {
		n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/rp_filter", "0")
		in := inbox(t, b, map[bool]uint16{false: 53, true: 54}[v6])
		to := netip.AddrPortFrom(b.Addr(v6), uint16(in.LocalAddr().(*net.UDPAddr).Port))
		nobody := netip.MustParseAddr(map[bool]string{false: "172.31.0.1", true: "fd99::1"}[v6])

		n.set(a, isolate(policy.Egress, with(pods(b))))
		n.set(b, isolate(policy.Ingress, with(pods(a, c))))
		n.set(c)
		before := denied(t, n.d)[dataplane.ReasonSpoofed]
		for _, source := range []netip.Addr{c.Addr(v6), nobody} {
			sendAs(t, a, source, to)
			if arrives(t, in, source, netnstest.Silence) {
				t.Errorf("a packet from a's interface with the source %v passed", source)
			}
		}
		if got := denied(t, n.d)[dataplane.ReasonSpoofed] - before; got != 2 {
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
		sendAs(t, a, nobody, to)
		if !arrives(t, in, nobody, netnstest.Patience) {
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
