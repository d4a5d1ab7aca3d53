package dataplane_test

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestEventContents(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsAll})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 53)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53))))
	reported := watchEvents(t, n.d)

	bothFamilies(t, func(t *testing.T, v6 bool) {
		before := time.Now()
		c, err := a.Dial("udp", netip.AddrPortFrom(b.Addr(v6), 53), netnstest.Patience)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		for range 3 { // one flow, one event
			if err := netnstest.Exchange(c, 8, netnstest.Patience); err != nil {
				t.Fatal(err)
			}
		}
		got := nextEvent(t, reported)
		after := time.Now()
		if got.Time.Before(before.Add(-time.Second)) || got.Time.After(after.Add(time.Second)) {
			t.Errorf("the event is of %v, the packet of %v to %v", got.Time, before, after)
		}
		set := n.compiler.Maps().Pods[b.Addr(v6)].Sets[policy.Ingress]
		want := events.Event{
			Time: got.Time, First: got.Time, Packets: 1, Bytes: got.Bytes, Direction: policy.Ingress, Source: c.LocalAddr().(*net.UDPAddr).AddrPort(),
			Destination: netip.AddrPortFrom(b.Addr(v6), 53), OriginalDestination: netip.AddrPortFrom(b.Addr(v6), 53),
			Protocol: policy.UDP, Verdict: events.Allow, Reason: events.ReasonRule, Tier: policy.TierNetworkPolicy,
			Rule: got.Rule, Set: set, IfIndex: uint32(a.Host.Attrs().Index),
		}
		if got != want {
			t.Errorf("got\n%+v, want\n%+v", got, want)
		}
		if ref, ok := n.compiler.Rule(got.Rule); !ok || ref.Rule != 0 || ref.Direction != policy.Ingress {
			t.Errorf("rule %d is %+v", got.Rule, ref)
		}
		isKept(t, a, "udp", b.Addr(v6), 54)
		if got := nextEvent(t, reported); got.Verdict != events.Deny || got.Reason != events.ReasonDefault || got.Destination.Port() != 54 {
			t.Errorf("event of a refusal: %+v", got)
		}
	})
}

// conntrack keeps other things of ICMP where it keeps ports.
func TestEventsOfICMPHaveNoPorts(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsDenied})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(b, isolate(policy.Ingress))
	reported := watchEvents(t, n.d)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		if ping(t, a, b.Addr(v6), netnstest.Silence) {
			t.Error("the ping was answered")
		}
		to := netip.AddrPortFrom(b.Addr(v6), 0)
		if e := nextEvent(t, reported); e.Source != netip.AddrPortFrom(a.Addr(v6), 0) || e.Destination != to || e.OriginalDestination != to {
			t.Errorf("event %+v", e)
		}
	})
}

func TestAudit(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsDenied})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("tcp", 80)
	n.audit(b, isolate(policy.Ingress))
	reported := watchEvents(t, n.d)

	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "tcp", b.Addr(v6), 80)
		if e := nextEvent(t, reported); e.Verdict != events.AuditDeny || e.Destination.Addr() != b.Addr(v6) {
			t.Errorf("event %+v", e)
		}
	})
}

// A ring without a reader fills up: events are lost and counted, and packets are judged as ever.
func TestLostEventsAreCounted(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Events: dataplane.EventsDenied, Sizes: dataplane.Sizes{EventBytes: uint32(os.Getpagesize())}})
	p := packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 81)}
	sync(t, d, isolated(0, p.Destination))
	run := newRunner(t, d)
	const packets = 100
	for range packets {
		if run.passes(p) {
			t.Fatal("a packet passed")
		}
	}
	counters, err := d.Counters()
	check(t, err)
	if lost := counters.LostEvents; lost == 0 || lost >= packets {
		t.Errorf("%d events of %d were lost", lost, packets)
	}
	if n := denied(t, d)[events.ReasonDefault]; n != packets {
		t.Errorf("%d refusals were counted, want %d", n, packets)
	}
}
