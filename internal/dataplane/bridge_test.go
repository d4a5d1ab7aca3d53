package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// Two pods of one bridge: their packets come by the hook through br_netfilter, and with them neighbour
// discovery, which no policy can speak of.
func TestBridge(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("bridge/bridge-nf-call-iptables", "1")
	n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	bridge := n.AddBridge("cni0")
	a, b := n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2")
	for _, p := range []uint16{80, 81} {
		b.Echo("tcp", p)
		b.Echo("udp", p)
	}
	for _, p := range pods(a, b) {
		n.set(p,
			isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80), port(policy.UDP, 80))),
			isolate(policy.Egress, with(pods(b), port(policy.TCP, 80), port(policy.UDP, 80))))
	}

	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "tcp", b.Addr(v6), 80)
		reaches(t, a, "udp", b.Addr(v6), 80)
		isKept(t, a, "tcp", b.Addr(v6), 81)
		isKept(t, a, "udp", b.Addr(v6), 81)
		isKept(t, b, "tcp", a.Addr(v6), 80)
		if err := a.AskSize("udp", netip.AddrPortFrom(b.Addr(v6), 80), 4000, netnstest.Patience); err != nil {
			t.Errorf("4000 bytes to an allowed port and back: %v", err)
		}
	})
}

// linkLocal is the address that the kernel gave a pod for its link.
func linkLocal(t testing.TB, p *netnstest.Pod) netip.Addr {
	t.Helper()
	eth0, err := p.Link.LinkByName("eth0")
	check(t, err)
	addrs, err := p.Link.AddrList(eth0, netlink.FAMILY_V6)
	check(t, err)
	for _, a := range addrs {
		if addr, ok := netip.AddrFromSlice(a.IP); ok && addr.IsLinkLocalUnicast() {
			return addr.WithZone("eth0")
		}
	}
	t.Fatal("the pod has no link-local address")
	panic("unreachable")
}

// A pod's policies are about its own addresses; there is no way around them by those of its link.
func TestLinkLocalOnABridge(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("bridge/bridge-nf-call-iptables", "1")
	n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	bridge := n.AddBridge("cni0")
	a, b := n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	n.set(b, isolate(policy.Ingress))
	n.set(a)
	isKept(t, a, "udp", b.V6, 80)
	isKept(t, a, "udp", linkLocal(t, b), 80)

	// Nor to escape one's own, by where one comes from.
	in := inbox(t, a, 81)
	n.set(b, isolate(policy.Egress))
	sendAs(t, b, linkLocal(t, b), netip.AddrPortFrom(a.V6, 81))
	if arrives(t, in, linkLocal(t, b).WithZone(""), netnstest.Silence) {
		t.Error("a packet from a link-local address passed")
	}
	if got := denied(t, n.d)[events.ReasonUnknown]; got == 0 {
		t.Error("nothing was counted")
	}
}

// A resolver and its client on one bridge: any pod of the bridge could have sent the answer, so it teaches nothing, and is counted apart.
func TestAnswersBehindABridge(t *testing.T) {
	n := newNode(t, withNames)
	n.Sysctl("bridge/bridge-nf-call-iptables", "1")
	n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	bridge := n.AddBridge("cni0")
	client, resolver := n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2")
	n.compiler.SetResolvers([]netip.AddrPort{netip.AddrPortFrom(resolver.V4, 53), netip.AddrPortFrom(resolver.V6, 53)})
	n.set(resolver)
	n.set(client, isolate(policy.Egress, with(pods(resolver), port(policy.UDP, 53)), named([]string{"api.example.com"})))
	zone := resolve(t, resolver.Namespace, 53)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		addr := netip.MustParseAddr("198.51.100.1")
		if v6 {
			addr = netip.MustParseAddr("2001::1")
		}
		zone.set("api.example.com", addr)
		ask(t, client, netip.AddrPortFrom(resolver.Addr(v6), 53), "api.example.com", kindOf(v6))
		if len(n.d.PatternsOf(addr)) > 0 {
			t.Error("an answer through a bridge taught something")
		}
	})
	counters, err := n.d.Counters()
	check(t, err)
	if got := counters.Names.Answers[dataplane.AnswerSharedInterface]; got != 2 {
		t.Errorf("%d answers through a shared interface, want 2", got)
	}
}
