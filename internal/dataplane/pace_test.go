package dataplane_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// A pod that floods the node with packets that no policy decides does not hide another pod's event: what it sends
// beyond its pace is counted for its own interface.
func TestOnePodsEventsHideNoOthers(t *testing.T) {
	const flood = 60
	routed := func(n *node) (attacker, other, to *netnstest.Pod) {
		attacker, other, to = n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
		for _, p := range pods(attacker, other) {
			n.Sysctl("ipv4/conf/"+p.Host.Attrs().Name+"/rp_filter", "0")
		}
		for _, p := range pods(attacker, other, to) {
			n.set(p)
		}
		return attacker, other, to
	}
	bridged := func(n *node) (attacker, other, to *netnstest.Pod) {
		n.Sysctl("bridge/bridge-nf-call-iptables", "1")
		bridge := n.AddBridge("cni0")
		attacker, other, to = n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2"), n.AddBridgedPod(bridge, "10.9.0.3", "fd09::3")
		for _, p := range pods(attacker, other, to) {
			n.setBehind(p, 0, 0, nil)
		}
		return attacker, other, to
	}
	for name, test := range map[string]struct {
		layout func(*node) (attacker, other, to *netnstest.Pod)
		guard  dataplane.Guard
		reason events.Reason
	}{
		"spoofed, routed veths": {routed, dataplane.GuardOff, events.ReasonSpoofed},
		"unknown, bridge":       {bridged, dataplane.GuardOn, events.ReasonUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{Events: dataplane.EventsDenied, EventRate: 1, EventBurst: 2, Guard: test.guard})
			n.Sysctl("ipv4/conf/all/rp_filter", "0")
			attacker, other, to := test.layout(n)
			reported := watchEvents(t, n.d)
			for i := range byte(flood) {
				sendAs(t, attacker, netip.AddrFrom4([4]byte{172, 31, 0, i + 1}), netip.AddrPortFrom(to.V4, 53))
			}
			unknown := netip.MustParseAddr("172.31.1.1")
			sendAs(t, other, unknown, netip.AddrPortFrom(to.V4, 53))
			deadline := time.After(netnstest.Patience)
			listed := 0
			for seen := false; !seen; {
				select {
				case e := <-reported:
					seen = e.Source.Addr() == unknown
					listed++
					if e.Reason != test.reason {
						t.Errorf("event %+v", e)
					}
				case <-deadline:
					t.Fatal("the other pod's packet is in no event")
				}
			}
			if listed > flood/2 {
				t.Errorf("%d events: the flood has no pace", listed)
			}
			repeats, err := n.d.Repeats()
			check(t, err)
			var unlisted uint64
			for _, e := range repeats {
				if e.Unlisted {
					unlisted += e.Packets
				}
			}
			if int(unlisted)+listed < flood+1 { // hosts send some of their own accord
				t.Errorf("%d packets in events and %d in the count, want %d at least", listed, unlisted, flood+1)
			}
		})
	}
}
