package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// Two pods of one bridge: their packets come by the hook through br_netfilter, and with them neighbour discovery, which no
// policy can speak of.
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
