package dataplane_test

import (
	"context"
	"errors"
	"net"
	"net/netip"
	gosync "sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

func hasAddress(addrs []netlink.Addr, a netip.Addr) bool {
	for _, addr := range addrs {
		if got, ok := netip.AddrFromSlice(addr.IP); ok && got.Unmap() == a {
			return true
		}
	}
	return false
}

// uplinks says which pods of the test are no pods but the world outside.
func (n *node) uplinks(outside ...*netnstest.Pod) {
	n.t.Helper()
	var indexes []uint32
	for _, p := range outside {
		indexes = append(indexes, uint32(p.Host.Attrs().Index))
	}
	n.compiler.SetUplinks(indexes)
	check(n.t, n.d.Apply(n.compiler.Commit()))
}

func (n *node) forget(p *netnstest.Pod) {
	n.t.Helper()
	n.compiler.DeletePod(p.V4.String())
	check(n.t, n.d.Apply(n.compiler.Commit()))
}

func TestGuard(t *testing.T) {
	for _, guard := range []dataplane.Guard{dataplane.GuardOff, dataplane.GuardAudit, dataplane.GuardOn} {
		open := guard != dataplane.GuardOn
		n := newNode(t, dataplane.Options{Guard: guard})
		known, unknown, outside := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("198.51.100.1", "2001:db8::1")
		n.uplinks(outside)
		n.set(known)
		for _, p := range pods(known, unknown, outside) {
			p.Echo("udp", 80)
		}
		probe := func(t *testing.T, passes bool, from, to *netnstest.Pod, v6 bool) {
			t.Helper()
			if passes {
				reaches(t, from, "udp", to.Addr(v6), 80)
			} else {
				isKept(t, from, "udp", to.Addr(v6), 80)
			}
		}
		bothFamilies(t, func(t *testing.T, v6 bool) {
			probe(t, open, unknown, known, v6)
			probe(t, open, known, unknown, v6)
			probe(t, open, unknown, outside, v6)
			probe(t, open, outside, unknown, v6)
			probe(t, true, outside, known, v6)
			probe(t, true, known, outside, v6)

			n.set(unknown) // known from now on, and open
			probe(t, true, unknown, known, v6)
			probe(t, true, known, unknown, v6)
			probe(t, true, outside, unknown, v6)
			n.forget(unknown)
		})
		if got := denied(t, n.d)[events.ReasonUnknown]; (got > 0) == open {
			t.Errorf("guard %d: %d packets were denied as unknown", guard, got)
		}
		counters, err := n.d.Counters()
		check(t, err)
		for _, c := range counters.Judged {
			if c.Reason == events.ReasonUnknown && c.Verdict == events.AuditDeny && (c.Packets > 0) != (guard == dataplane.GuardAudit) {
				t.Errorf("guard %d: counted %+v", guard, c)
			}
		}
	}
}

// What a sender tries beyond its pace is one count of that sender, however many addresses it tries.
func TestAScanOfStrangersIsOneCount(t *testing.T) {
	n := newNode(t, dataplane.Options{Guard: dataplane.GuardOn, Events: dataplane.EventsDenied, EventRate: 1, EventBurst: 1})
	known := n.AddPod("10.9.0.1", "fd09::1")
	n.set(known)
	for i := range 4 {
		stranger := n.AddPod(netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}).String(), netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 14: 1, 15: byte(i)}).String())
		isKept(t, known, "udp", stranger.V4, 80)
		isKept(t, known, "udp", stranger.V4, 81)
	}
	repeats, err := n.d.Repeats()
	check(t, err)
	unlisted := 0
	for _, e := range repeats {
		if e.Unlisted {
			unlisted++
			if e.Reason != events.ReasonUnknown || e.Source.Addr() != known.V4 || !e.Destination.Addr().IsUnspecified() {
				t.Errorf("%+v", e)
			}
		}
	}
	if unlisted != 1 {
		t.Errorf("%d counts of what is not listed, want 1: %+v", unlisted, repeats)
	}
}

func TestGuardOfABridge(t *testing.T) {
	n := newNode(t, dataplane.Options{Guard: dataplane.GuardOn})
	n.Sysctl("bridge/bridge-nf-call-iptables", "1")
	n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
	bridge := n.AddBridge("cni0")
	a, b := n.AddBridgedPod(bridge, "10.9.0.1", "fd09::1"), n.AddBridgedPod(bridge, "10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	setBridged := func(p *netnstest.Pod) { n.setBehind(p, 0, 0, nil) }
	bothFamilies(t, func(t *testing.T, v6 bool) { isKept(t, a, "udp", b.Addr(v6), 80) })
	setBridged(b)
	bothFamilies(t, func(t *testing.T, v6 bool) { isKept(t, a, "udp", b.Addr(v6), 80) })
	setBridged(a)
	bothFamilies(t, func(t *testing.T, v6 bool) { reaches(t, a, "udp", b.Addr(v6), 80) })
}

// A pod that sends from its first instruction on gets no packet out, and none in, before its policies are in
// force, and none after that they refuse.
func TestAPodThatSendsAtOnce(t *testing.T) {
	n := newNode(t, dataplane.Options{Guard: dataplane.GuardOn})
	server := n.AddPod("10.9.0.1", "fd09::1")
	n.set(server)
	allowed, forbidden := inbox(t, server, 80), inbox(t, server, 81)
	for i := range 5 {
		pod := n.AddPod(netip.AddrFrom4([4]byte{10, 9, 1, byte(i)}).String(), netip.AddrFrom16([16]byte{0: 0xfd, 1: 9, 14: 1, 15: byte(i)}).String())
		in := inbox(t, pod, 90)
		ctx, stop := context.WithCancel(t.Context())
		var sending gosync.WaitGroup
		var sent []*atomic.Int64
		send := func(from *netnstest.Pod, to netip.AddrPort) {
			c, err := from.Dial("udp", to, netnstest.Patience)
			check(t, err)
			n := new(atomic.Int64)
			sent = append(sent, n)
			sending.Go(func() {
				defer func() { _ = c.Close() }()
				for ctx.Err() == nil {
					_, _ = c.Write([]byte("x")) // a refusal may come back as an error
					n.Add(1)
					time.Sleep(100 * time.Microsecond)
				}
			})
		}
		more := func() { // is sent by each
			for _, n := range sent {
				for until := n.Load() + 10; n.Load() < until; {
					time.Sleep(time.Millisecond)
				}
			}
		}
		v6 := i%2 == 1
		send(pod, netip.AddrPortFrom(server.Addr(v6), 80))
		send(pod, netip.AddrPortFrom(server.Addr(v6), 81))
		send(server, netip.AddrPortFrom(pod.Addr(v6), 90))
		more()
		for _, c := range []*net.UDPConn{allowed, forbidden} {
			if arrives(t, c, pod.Addr(v6), netnstest.Silence/5) {
				t.Fatal("a packet got out before the pod was known")
			}
		}
		if arrives(t, in, server.Addr(v6), netnstest.Silence/5) {
			t.Fatal("a packet got in before the pod was known")
		}
		n.set(pod, isolate(policy.Egress, with(pods(server), port(policy.UDP, 80))), isolate(policy.Ingress))
		if !arrives(t, allowed, pod.Addr(v6), netnstest.Patience) {
			t.Error("what is allowed does not get out")
		}
		more()
		if arrives(t, forbidden, pod.Addr(v6), netnstest.Silence/5) || arrives(t, in, server.Addr(v6), netnstest.Silence/5) {
			t.Error("what is refused passes")
		}
		stop()
		sending.Wait()
	}
}

// A pod that there is no room for is refused whatever the mode, and the others go on.
func TestNoRoomForAPod(t *testing.T) {
	n := newNode(t, dataplane.Options{Sizes: dataplane.Sizes{Pods: 4}})
	a, b, c, outside := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3"), n.AddPod("198.51.100.1", "2001:db8::1")
	n.uplinks(outside)
	for _, p := range pods(a, b, c, outside) {
		p.Echo("udp", 80)
	}
	n.set(a)
	n.set(b, isolate(policy.Ingress, with(pods(a))))
	n.compiler.SetPod(c.V4.String(), compiler.PodSpec{Addresses: addrs(c), Policies: []*policy.Policy{isolate(policy.Ingress)}, Interfaces: []uint32{uint32(c.Host.Attrs().Index)}})
	var full *dataplane.MapFullError
	if err := n.d.Apply(n.compiler.Commit()); !errors.As(err, &full) || full.Map != "pods" {
		t.Fatalf("error %v", err)
	}
	closed, err := n.d.FailClosed(n.compiler.Maps())
	check(t, err)
	if closed != 2 {
		t.Errorf("%d addresses are closed, want 2", closed)
	}
	bothFamilies(t, func(t *testing.T, v6 bool) {
		isKept(t, a, "udp", c.Addr(v6), 80)
		isKept(t, c, "udp", a.Addr(v6), 80)
		isKept(t, outside, "udp", c.Addr(v6), 80)
		reaches(t, a, "udp", b.Addr(v6), 80)
		reaches(t, a, "udp", outside.Addr(v6), 80)
		isKept(t, outside, "udp", b.Addr(v6), 80)
	})
	n.compiler.DeletePod(c.V4.String())
	n.compiler.Commit()
	sync(t, n.d, n.compiler.Maps())
	reaches(t, c, "udp", a.V4, 80) // unknown, and open as the mode has it
}
