package dataplane_test

import (
	"net"
	"net/netip"
	goruntime "runtime"
	stdsync "sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// recordsTo are the records since the last call about packets to a port, or from it.
func recordsTo(t testing.TB, d *dataplane.Dataplane, port uint16) (out []events.Event) {
	t.Helper()
	records, err := d.Records()
	check(t, err)
	for _, r := range records { // hosts send some of their own accord
		if r.Destination.Port() == port || r.Source.Port() == port {
			out = append(out, r)
		}
	}
	return out
}

// byDirection are one record for each end.
func byDirection(t testing.TB, records []events.Event) map[policy.Direction]events.Event {
	t.Helper()
	out := map[policy.Direction]events.Event{}
	for _, r := range records {
		if before, ok := out[r.Direction]; ok {
			t.Errorf("two records for %v: %+v and %+v", r.Direction, before, r)
		}
		out[r.Direction] = r
	}
	return out
}

func TestEachEndOfAConnectionIsRecorded(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 53)
	b.Echo("udp", 54)
	n.set(a)
	for name, tc := range map[string]struct {
		policies []*policy.Policy
		port     uint16
		passes   bool
		reason   events.Reason
	}{
		"no policy isolates the pods": {nil, 53, true, events.ReasonDefault},
		"a rule allows":               {[]*policy.Policy{isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53)))}, 53, true, events.ReasonRule},
		"the default denies":          {[]*policy.Policy{isolate(policy.Ingress, with(pods(a), port(policy.UDP, 53)))}, 54, false, events.ReasonDefault},
	} {
		t.Run(name, func(t *testing.T) {
			n.set(b, tc.policies...)
			bothFamilies(t, func(t *testing.T, v6 bool) {
				to := netip.AddrPortFrom(b.Addr(v6), tc.port)
				recordsTo(t, n.d, tc.port)
				c, err := a.Dial("udp", to, netnstest.Patience)
				check(t, err)
				defer func() { _ = c.Close() }()
				within := netnstest.Patience
				if !tc.passes {
					within = netnstest.Silence
				}
				for range 3 { // one connection, however many packets
					if err := netnstest.Exchange(c, 8, within); (err == nil) != tc.passes {
						t.Fatalf("the exchange ends with %v", err)
					}
				}
				records := byDirection(t, recordsTo(t, n.d, tc.port))
				if len(records) != 2 {
					t.Fatalf("%+v", records)
				}
				for d, r := range records {
					want := events.Event{
						Time: r.Time, First: r.First, Packets: r.Packets, Bytes: r.Packets * uint64(len(packet{Flow: policy.Flow{Source: to.Addr(), Protocol: policy.UDP}}.ip())+4),
						Direction: d, Source: c.LocalAddr().(*net.UDPAddr).AddrPort(), Destination: to, OriginalDestination: to,
						Protocol: policy.UDP, Verdict: events.Allow, Reason: events.ReasonDefault, IfIndex: uint32(a.Host.Attrs().Index),
					}
					if d == policy.Ingress {
						want.Reason, want.Rule, want.Tier, want.Set = tc.reason, r.Rule, r.Tier, n.compiler.Maps().Pods[to.Addr()].Sets[d]
						if !tc.passes {
							want.Verdict = events.Deny
						}
						if (r.Rule != 0) != (tc.reason == events.ReasonRule) {
							t.Errorf("rule %d", r.Rule)
						}
					}
					if r != want {
						t.Errorf("got\n%+v, want\n%+v", r, want)
					}
					if tc.passes && r.Packets != 1 {
						t.Errorf("%d packets of one connection", r.Packets)
					}
				}
			})
		})
	}
}

func TestAPodsConnectionsToItsOwnNodeAreRecorded(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a := n.AddPod("10.9.0.1", "fd09::1")
	for _, addr := range ownAddresses {
		n.ownAddress(netip.PrefixFrom(addr, addr.BitLen()).String())
	}
	n.Echo("udp", 80)
	deny := denies(policy.Egress, everyone(port(policy.UDP, 81)))
	n.set(a, isolate(policy.Egress), deny)
	expect := func(t *testing.T, to netip.AddrPort, verdict events.Verdict, reason events.Reason) {
		t.Helper()
		r := recordsTo(t, n.d, to.Port())
		if len(r) != 1 || r[0].Direction != policy.Egress || r[0].Destination != to || r[0].Verdict != verdict || r[0].Reason != reason {
			t.Errorf("%+v", r)
		}
	}
	for name, change := range map[string]func(){
		"no policy judges them":     func() { n.Do(func() error { return n.d.SetJudgesLocal(false) }) },
		"the cluster's policies do": func() { n.own(a, 0, deny) },
	} {
		t.Run(name, func(t *testing.T) {
			change()
			bothFamilies(t, func(t *testing.T, v6 bool) {
				recordsTo(t, n.d, 80)
				reaches(t, a, "udp", ownAddresses[v6], 80)
				expect(t, netip.AddrPortFrom(ownAddresses[v6], 80), events.Allow, events.ReasonDefault)
			})
		})
	}
	n.own(a, 0, deny)
	isKept(t, a, "udp", ownAddresses[false], 81)
	expect(t, netip.AddrPortFrom(ownAddresses[false], 81), events.Deny, events.ReasonRule)
	n.compiler.DeletePod(a.V4.String() + " own")
	check(t, n.d.Apply(n.compiler.Commit()))
	recordsTo(t, n.d, 80)
	reaches(t, a, "udp", ownAddresses[false], 80) // other pods have such entries, and this one has none
	expect(t, netip.AddrPortFrom(ownAddresses[false], 80), events.Allow, events.ReasonDefault)
}

func TestADenialAtTheSourceIsOneRecord(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a, isolate(policy.Egress))
	n.set(b)
	isKept(t, a, "udp", b.V4, 53)
	if r := recordsTo(t, n.d, 53); len(r) != 1 || r[0].Direction != policy.Egress || r[0].Verdict != events.Deny {
		t.Errorf("%+v", r)
	}
}

// What audited policies would do stands beside what happened, and says so.
func TestRecordsOfAudit(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	n.set(a)
	ingress := func() (out []events.Event) {
		for _, r := range recordsTo(t, n.d, 80) {
			if r.Direction == policy.Ingress {
				out = append(out, r)
			}
		}
		return out
	}

	n.setAudit(b, underAudit(isolate(policy.Ingress)))
	reaches(t, a, "udp", b.V4, 80)
	verdicts := map[events.Verdict]bool{}
	for _, r := range ingress() {
		verdicts[r.Verdict] = r.WouldBe
	}
	if wouldBe, ok := verdicts[events.AuditDeny]; len(verdicts) != 2 || !ok || !wouldBe || verdicts[events.Allow] {
		t.Errorf("an audited policy: %v", verdicts)
	}

	n.audit(b, isolate(policy.Ingress))
	reaches(t, a, "udp", b.V4, 80)
	if r := ingress(); len(r) != 1 || r[0].Verdict != events.AuditDeny || r[0].WouldBe {
		t.Errorf("a pod in audit mode: %+v", r)
	}
}

// A record has the verdict of the policies in force at the time of the packet, whatever the policies become while
// connections live.
func TestRecordsFollowThePoliciesInForce(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	b.Echo("udp", 80)
	n.set(a)
	n.set(b)
	living, err := a.Dial("udp", netip.AddrPortFrom(b.V4, 80), netnstest.Patience)
	check(t, err)
	defer func() { _ = living.Close() }()
	for _, step := range []struct {
		name     string
		policies []*policy.Policy
		reaches  bool
		want     map[events.Verdict]events.Reason
	}{
		{"none", nil, true, map[events.Verdict]events.Reason{events.Allow: events.ReasonDefault}},
		{"staged", []*policy.Policy{underAudit(isolate(policy.Ingress))}, true,
			map[events.Verdict]events.Reason{events.Allow: events.ReasonDefault, events.AuditDeny: events.ReasonDefault}},
		{"enforced", []*policy.Policy{isolate(policy.Ingress)}, false, map[events.Verdict]events.Reason{events.Deny: events.ReasonDefault}},
		{"edited", []*policy.Policy{isolate(policy.Ingress, with(pods(a)))}, true, map[events.Verdict]events.Reason{events.Allow: events.ReasonRule}},
		{"removed", nil, true, map[events.Verdict]events.Reason{events.Allow: events.ReasonDefault}},
	} {
		t.Run(step.name, func(t *testing.T) {
			n.setAudit(b, step.policies...)
			recordsTo(t, n.d, 80)
			check(t, netnstest.Exchange(living, 8, netnstest.Patience)) // conntrack has it: no policy is asked again, and it is no new connection
			if step.name != "none" {
				if r := recordsTo(t, n.d, 80); len(r) != 0 {
					t.Errorf("the living connection is recorded: %+v", r)
				}
			}
			if step.reaches {
				reaches(t, a, "udp", b.V4, 80)
			} else {
				isKept(t, a, "udp", b.V4, 80)
			}
			got := map[events.Verdict]events.Reason{}
			for _, r := range recordsTo(t, n.d, 80) {
				if r.Direction == policy.Ingress {
					got[r.Verdict] = r.Reason
				}
			}
			if len(got) != len(step.want) {
				t.Errorf("got %v, want %v", got, step.want)
			}
			for v, reason := range step.want {
				if is, ok := got[v]; !ok || is != reason {
					t.Errorf("got %v, want %v", got, step.want)
				}
			}
		})
	}
}

func TestLateReplies(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Records: true})
	from, to := netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")
	sync(t, d, isolated(0, to))
	run := newRunner(t, d)
	for name, tc := range map[string]struct {
		protocol         policy.Protocol
		sport, dport     uint16
		flags            byte
		continues, reply bool
	}{
		"TCP opens":                     {policy.TCP, 40000, 5432, 0x02, false, false},
		"TCP opens to a high port":      {policy.TCP, 5432, 40000, 0x02, false, false},
		"TCP opens with ECN":            {policy.TCP, 40000, 5432, 0xc2, false, false},
		"TCP answers the opening":       {policy.TCP, 40000, 5432, 0x12, true, true},
		"TCP, the server goes on":       {policy.TCP, 5432, 40000, 0x18, true, true},
		"TCP, the client goes on":       {policy.TCP, 40000, 5432, 0x18, true, false},
		"TCP, the server resets":        {policy.TCP, 5432, 40000, 0x04, true, true},
		"UDP from a server":             {policy.UDP, 53, 35528, 0, true, true},
		"UDP from a server's high port": {policy.UDP, 8053, 35528, 0, true, true},
		"UDP from a client":             {policy.UDP, 35528, 53, 0, false, false},
		"UDP between two low ports":     {policy.UDP, 123, 123, 0, false, false},
		"UDP between two high ports":    {policy.UDP, 51820, 51820, 0, false, false},
		"UDP to a NodePort":             {policy.UDP, 1024, 30053, 0, false, false},
		"SCTP's data":                   {policy.SCTP, 3868, 40000, 0, true, true},
		"ICMP that asks nothing":        {policy.ICMP, 0, 0, 0, true, true}, // conntrack has no entry for an answer
		"another protocol":              {47, 0, 0, 0, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			p := packet{Flow: policy.Flow{Source: from, Destination: to, Protocol: tc.protocol, Port: tc.dport}, sport: tc.sport, flags: tc.flags}
			run.passes(p)
			records, err := d.Records()
			check(t, err)
			if len(records) != 1 || records[0].Continues != tc.continues || records[0].Reply != tc.reply {
				t.Errorf("%+v", records)
			}
		})
	}
}

// A connection that conntrack has forgotten is no new one, from either end.
func TestAForgottenConnectionIsNoNewOne(t *testing.T) {
	n := newNode(t, dataplane.Options{Records: true, EventRate: 50})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a)
	n.set(b)
	client, server := live(t, a, b, "tcp", netip.AddrPortFrom(b.V4, 80), 80)
	for _, r := range recordsTo(t, n.d, 80) {
		if r.Continues || r.Packets != 1 {
			t.Errorf("the first packet: %+v", r)
		}
	}
	for reply, send := range map[bool]func() bool{
		false: func() bool { return push(t, client, server, netnstest.Patience) },
		true:  func() bool { return push(t, server, client, netnstest.Patience) },
	} {
		n.flush()
		if !send() {
			t.Error("the packet does not arrive")
		}
		records := byDirection(t, recordsTo(t, n.d, 80))
		if len(records) != 2 {
			t.Errorf("%+v", records)
		}
		for _, r := range records {
			if !r.Continues || r.Reply != reply {
				t.Errorf("reply %v: %+v", reply, r)
			}
		}
	}
}

// recordedPackets are the packets of records, and those of them that are not listed.
func recordedPackets(records []events.Event) (all, unlisted uint64) {
	for _, r := range records {
		all += r.Packets
		if r.Unlisted {
			unlisted += r.Packets
		}
	}
	return all, unlisted
}

// After a burst of thousands of kinds, of which most are only counted, new kinds have records again.
func TestABurstOfKindsIsCountedAndRecordsArriveAgain(t *testing.T) {
	for name, opts := range map[string]dataplane.Options{
		"the pod's pace": {EventRate: 100, EventBurst: 20},
		"the map":        {EventRate: dataplane.Unlimited, Sizes: dataplane.Sizes{Records: 64}},
		"both":           {EventRate: 1000, EventBurst: 1000, Sizes: dataplane.Sizes{Records: 8}},
	} {
		t.Run(name, func(t *testing.T) {
			opts.Records = true
			d := newDataplane(t, opts)
			run, pod := newRunner(t, d), netip.MustParseAddr("10.0.0.1")
			sync(t, d, &compiler.Maps{Pods: map[netip.Addr]compiler.Pod{pod: {}}})
			send := func(i int) {
				from := netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)})
				if !run.passes(packet{Flow: policy.Flow{Source: from, Destination: pod, Protocol: policy.TCP, Port: 80}}) {
					t.Fatal("a packet did not pass")
				}
			}
			const packets = 5000
			for i := range packets {
				send(i)
			}
			records, err := d.Records()
			check(t, err)
			counters, err := d.Counters()
			check(t, err)
			all, unlisted := recordedPackets(records)
			if all+counters.UnrecordedPackets != packets || unlisted+counters.UnrecordedPackets == 0 {
				t.Errorf("%d packets in records, %d of them unlisted, %d in none; want %d", all, unlisted, counters.UnrecordedPackets, packets)
			}
			for deadline := time.Now().Add(netnstest.Patience); ; {
				send(packets)
				records, err := d.Records()
				check(t, err)
				if all, unlisted := recordedPackets(records); all > unlisted {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("a new kind has no record")
				}
			}
		})
	}
}

// One pod's burst takes nothing from the events of the flow log, and from other pods' records.
func TestRecordsTakeNothingFromEvents(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Records: true, Events: dataplane.EventsDenied, EventRate: 1, EventBurst: 1})
	loud, quiet := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2")
	sync(t, d, isolated(0, loud, quiet))
	run, reported := newRunner(t, d), watchEvents(t, d)
	for i := range 1000 {
		run.passes(packet{Flow: policy.Flow{Source: netip.AddrFrom4([4]byte{11, 0, byte(i >> 8), byte(i)}), Destination: loud, Protocol: policy.TCP, Port: 80}})
	}
	run.refuses(packet{Flow: flow("12.0.0.1", "10.0.0.1", policy.TCP, 81)}, 1)
	if e := nextEvent(t, reported); e.Verdict != events.Deny {
		t.Errorf("event %+v", e)
	}
	run.refuses(packet{Flow: flow("12.0.0.1", "10.0.0.2", policy.TCP, 81)}, 1)
	records, err := d.Records()
	check(t, err)
	for _, r := range records {
		if r.Destination.Addr() == quiet && !r.Unlisted {
			return
		}
	}
	t.Errorf("no record of the quiet pod: %+v", records)
}

func TestRecordsAreExactWhileTheyAreRead(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Records: true, EventRate: 50})
	p := packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 81)}
	sync(t, d, &compiler.Maps{Pods: map[netip.Addr]compiler.Pod{p.Destination: {}}})
	const packets = 10_000
	var running stdsync.WaitGroup
	for range goruntime.NumCPU() {
		running.Go(func() {
			run := newRunner(t, d)
			for range packets {
				if _, err := d.Program().Run(run.options(p)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	go func() {
		running.Wait()
		close(stop)
	}()
	sum := uint64(0)
	for ended := false; !ended; {
		select {
		case <-stop:
			ended = true
		default:
		}
		records, err := d.Records()
		check(t, err)
		all, unlisted := recordedPackets(records)
		if sum += all; unlisted > 0 {
			t.Errorf("%d packets of one kind are not listed", unlisted)
		}
	}
	if want := uint64(goruntime.NumCPU()) * packets; sum != want {
		t.Errorf("%d packets are recorded, want %d", sum, want)
	}
}

func TestTheMemoryOfRecords(t *testing.T) {
	off, on := dataplane.Options{}, dataplane.Options{Records: true}
	if off.MapMemory() >= on.MapMemory() || on.MapMemory() > off.MapMemory()+20<<20 {
		t.Errorf("%d bytes without records, %d with", off.MapMemory(), on.MapMemory())
	}
}
