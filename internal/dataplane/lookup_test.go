package dataplane_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// newDataplane loads a generation that is not attached. Each packet makes an event, unless the options say
// otherwise.
func newDataplane(t testing.TB, opts dataplane.Options) *dataplane.Dataplane {
	t.Helper()
	opts.EventRate = cmp.Or(opts.EventRate, dataplane.Unlimited)
	d, err := dataplane.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func sync(t testing.TB, d *dataplane.Dataplane, want *compiler.Maps) dataplane.Drift {
	t.Helper()
	drift, err := d.Sync(want, nil)
	if err != nil {
		t.Fatal(err)
	}
	return drift
}

// watchEvents reads the events of d as long as the test runs.
func watchEvents(t testing.TB, d *dataplane.Dataplane) <-chan events.Event {
	t.Helper()
	out := make(chan events.Event, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- d.Events(ctx, func(e events.Event) {
			select {
			case out <- e:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return out
}

func nextEvent(t testing.TB, reported <-chan events.Event) events.Event {
	t.Helper()
	select {
	case e := <-reported:
		return e
	case <-time.After(netnstest.Patience):
		t.Fatalf("no event within %v", netnstest.Patience)
		panic("unreachable")
	}
}

// The addresses and prefixes that random tables and flows are made of: few, near each other and at the edges,
// so that they meet.
var (
	someAddrs = []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.1.1"),
		netip.MustParseAddr("10.128.0.1"), netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("255.255.255.255"),
		netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2"), netip.MustParseAddr("fd00:0:0:1::1"),
		netip.MustParseAddr("fd00:8000::1"), netip.MustParseAddr("::"), netip.MustParseAddr("::fffe:a00:1"),
		netip.MustParseAddr("::a00:1"), netip.MustParseAddr("ffff::ffff"),
	}
	someBits     = []int{0, 1, 7, 8, 9, 15, 16, 17, 24, 31, 32, 48, 64, 79, 80, 81, 94, 95, 96, 97, 104, 127, 128}
	somePorts    = []uint16{0, 1, 79, 80, 81, 443, 8080, 32767, 32768, 65534, 65535}
	someProtocol = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}
	otherTypes   = []policy.Protocol{policy.ICMP, policy.ICMPv6, 0, 4, 47, 50, 59, 255}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

func randomVerdict(r *rand.Rand) compiler.Decision {
	return compiler.Decision{
		Action: pick(r, []policy.Action{policy.Allow, policy.Deny}),
		Tier:   policy.Tier(r.IntN(3)),
		Rule:   compiler.RuleID(r.IntN(100)),
	}
}

// randomTables are not what a compiler would make: any that have the form must be looked up right.
func randomTables(r *rand.Rand) *compiler.Maps {
	const sets, classes, tables = 4, 6, 4
	t := &compiler.Maps{
		Pods:      map[netip.Addr]compiler.Pod{},
		Addresses: map[netip.Addr]compiler.ClassID{},
		Networks:  map[netip.Prefix]compiler.ClassID{},
		Rows:      map[compiler.RowKey]compiler.Row{},
		Ports:     map[compiler.PortKey]compiler.Decision{},
	}
	for _, a := range someAddrs {
		if r.IntN(4) > 0 {
			t.Pods[a] = compiler.Pod{
				Sets:      [2]compiler.SetID{compiler.SetID(r.IntN(sets + 1)), compiler.SetID(r.IntN(sets + 1))},
				Flags:     compiler.PodFlags(r.IntN(8) / 7),
				AuditSets: [2]compiler.SetID{compiler.SetID(max(0, r.IntN(2*sets)-sets+1)), compiler.SetID(max(0, r.IntN(2*sets)-sets+1))},
			}
		}
		if r.IntN(3) == 0 {
			t.Addresses[a] = compiler.ClassID(r.IntN(classes + 1))
		}
	}
	for range r.IntN(20) {
		if p, err := pick(r, someAddrs).Prefix(pick(r, someBits)); err == nil {
			t.Networks[p] = compiler.ClassID(r.IntN(classes + 1))
		}
	}
	for s := range sets {
		for c := range classes + 1 {
			if r.IntN(2) == 0 {
				t.Rows[compiler.RowKey{Set: compiler.SetID(s + 1), Class: compiler.ClassID(c)}] = compiler.Row{
					PortList: compiler.PortListID(r.IntN(tables + 1)), Default: randomVerdict(r),
				}
			}
		}
	}
	for range r.IntN(40) {
		bits := r.IntN(17)
		t.Ports[compiler.PortKey{
			PortList: compiler.PortListID(1 + r.IntN(tables)), Protocol: pick(r, someProtocol),
			Port: pick(r, somePorts) &^ uint16(1<<(16-bits)-1), Bits: uint8(bits),
		}] = randomVerdict(r)
	}
	return t
}

func randomPacket(r *rand.Rand) packet {
	p := packet{sport: uint16(r.IntN(1 << 16))}
	p.Source, p.Destination = pick(r, someAddrs), pick(r, someAddrs)
	for p.Source.Is4() != p.Destination.Is4() {
		p.Destination = pick(r, someAddrs)
	}
	p.Protocol, p.Port = pick(r, someProtocol), pick(r, somePorts)
	if r.IntN(5) == 0 {
		p.Protocol, p.Port = pick(r, otherTypes), 0
		if p.Protocol == 0 && p.Source.Is6() {
			p.Protocol = 47 // 0 is an extension header there
		}
	}
	return p
}

// expected is what the tables say about the packet, as events of EventsAll in order.
func expected(t *compiler.Maps, f policy.Flow) (reported []events.Event, passes bool) {
	if f.Source == f.Destination {
		return nil, true
	}
	for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
		pod := t.Pods[f.Self(d)]
		report := func(v compiler.Decision, set compiler.SetID, verdict events.Verdict) {
			e := events.Event{Direction: d, Verdict: verdict, Tier: v.Tier, Rule: v.Rule, Flags: pod.Flags, Set: set}
			if v.Rule == 0 {
				e.Reason = events.ReasonDefault
			}
			reported = append(reported, e)
		}
		v, isolated := t.Lookup(d, f)
		verdict := events.Allow
		switch {
		case v.Action == policy.Deny && pod.Flags&compiler.Audit != 0:
			verdict = events.AuditDeny
		case v.Action == policy.Deny:
			verdict = events.Deny
		}
		if isolated {
			report(v, pod.Sets[d], verdict)
		}
		if all, audited := t.LookupAudit(d, f); audited && all.Action != v.Action {
			report(all, pod.AuditSets[d], map[policy.Action]events.Verdict{policy.Allow: events.AuditAllow, policy.Deny: events.AuditDeny}[all.Action])
		}
		if verdict == events.Deny {
			return reported, false
		}
	}
	return reported, true
}

func TestEveryPacketIsJudgedAsTheTablesSay(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	d := newDataplane(t, dataplane.Options{Events: dataplane.EventsAll})
	run := newRunner(t, d)
	reported := watchEvents(t, d)

	for range 40 {
		tables := randomTables(r)
		sync(t, d, tables)
		for range 500 {
			p := randomPacket(r)
			wantEvents, want := expected(tables, p.Flow)
			if got := run.passes(p); got != want {
				t.Fatalf("%+v: passes %v, want %v; by %+v; tables %+v", p.Flow, got, want, wantEvents, tables)
			}
			for _, want := range wantEvents {
				got := nextEvent(t, reported)
				want.Source, want.Destination = netip.AddrPortFrom(p.Source, 0), netip.AddrPortFrom(p.Destination, p.Port)
				if p.Protocol.HasPorts() {
					want.Source = netip.AddrPortFrom(p.Source, p.sport)
				}
				want.Protocol, want.Time, want.First, want.Packets, want.Bytes = p.Protocol, got.Time, got.Time, 1, uint64(len(p.ip()))
				if got != want {
					t.Fatalf("%+v: event\n%+v, want\n%+v; tables %+v", p.Flow, got, want, tables)
				}
			}
		}
	}
	counters, err := d.Counters()
	if err != nil {
		t.Fatal(err)
	}
	if counters.LostEvents != 0 {
		t.Errorf("%d events were lost", counters.LostEvents)
	}
}

// A prefix of one family must not hold addresses of the other, though they share a trie.
func TestFamiliesAreApart(t *testing.T) {
	pods := map[netip.Addr]compiler.Pod{}
	for _, a := range []string{"10.0.0.1", "fd00::1"} {
		pods[netip.MustParseAddr(a)] = compiler.Pod{Sets: [2]compiler.SetID{policy.Egress: 1}}
	}
	accept := compiler.Row{Default: compiler.Decision{Action: policy.Allow, Tier: policy.TierNetworkPolicy, Rule: 1}}
	v4, v6 := flow("10.0.0.1", "10.0.0.2", policy.TCP, 80), flow("fd00::1", "fd00::2", policy.TCP, 80)
	d := newDataplane(t, dataplane.Options{})
	run := newRunner(t, d)

	for _, test := range []struct {
		networks       []string
		passV4, passV6 bool
	}{
		{[]string{"::/0"}, false, true},
		{[]string{"0.0.0.0/0"}, true, false},
		{[]string{"::/0", "0.0.0.0/0"}, true, true},
		{[]string{"::ffff:0:0/96"}, false, false}, // written as IPv6, no packet has such an address
		{[]string{"::ffff:10.0.0.2/128"}, false, false},
		{[]string{"::/64"}, false, false},
		{nil, false, false}, // and nothing of the former is left
	} {
		t.Run(fmt.Sprint(test.networks), func(t *testing.T) {
			networks := map[netip.Prefix]compiler.ClassID{}
			for _, n := range test.networks {
				networks[netip.MustParsePrefix(n)] = 1
			}
			sync(t, d, &compiler.Maps{Pods: pods, Networks: networks, Rows: map[compiler.RowKey]compiler.Row{{Set: 1, Class: 1}: accept}})
			for f, want := range map[policy.Flow]bool{v4: test.passV4, v6: test.passV6} {
				if got := run.passes(packet{Flow: f}); got != want {
					t.Errorf("%v passes %v, want %v", f, got, want)
				}
			}
			if drift := sync(t, d, &compiler.Maps{Pods: pods, Networks: networks, Rows: map[compiler.RowKey]compiler.Row{{Set: 1, Class: 1}: accept}}); drift.Total() != 0 {
				t.Errorf("a second Sync finds %v", drift)
			}
		})
	}
}

func TestDenyAll(t *testing.T) {
	d := newDataplane(t, dataplane.Options{})
	accept := compiler.Row{Default: compiler.Decision{Action: policy.Allow}}
	sync(t, d, &compiler.Maps{
		Pods: map[netip.Addr]compiler.Pod{netip.MustParseAddr("10.0.0.1"): {Sets: [2]compiler.SetID{dataplane.DenyAll, 0}}},
		Rows: map[compiler.RowKey]compiler.Row{{Set: 1, Class: 0}: accept},
	})
	if newRunner(t, d).passes(packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 80)}) {
		t.Error("a pod under DenyAll was reached")
	}
}
