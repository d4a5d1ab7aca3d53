package dataplane_test

import (
	"os"
	goruntime "runtime"
	stdsync "sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// tally sums up what a dataplane tells, as the flow log does.
type tally struct {
	t  testing.TB
	d  *dataplane.Dataplane
	mu stdsync.Mutex
	// Packets in events, in repeats of one kind, and in pods' own counts.
	events, repeats, unlisted uint64
}

func newTally(t testing.TB, d *dataplane.Dataplane) *tally {
	out := &tally{t: t, d: d}
	reported := watchEvents(t, d)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range reported {
			out.add(e, &out.events)
		}
	}()
	return out
}

func (c *tally) add(e events.Event, to *uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	*to += e.Packets
}

func (c *tally) drain() []events.Event {
	c.t.Helper()
	repeats, err := c.d.Repeats()
	check(c.t, err)
	for _, e := range repeats {
		if e.Unlisted {
			c.add(e, &c.unlisted)
		} else {
			c.add(e, &c.repeats)
		}
	}
	return repeats
}

func (c *tally) inEvents() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.events
}

func (c *tally) counters() dataplane.Counters {
	c.t.Helper()
	counters, err := c.d.Counters()
	check(c.t, err)
	return counters
}

// adds waits until every packet that was judged is accounted for, each once.
func (c *tally) adds(packets uint64) {
	c.t.Helper()
	if n := denied(c.t, c.d)[events.ReasonDefault]; n != packets {
		c.t.Fatalf("%d refusals were counted, want %d", n, packets)
	}
	c.drain()
	want := packets - c.counters().UnlistedPackets
	sum := func() uint64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.events + c.repeats + c.unlisted
	}
	for deadline := time.Now().Add(30 * time.Second); sum() < want && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
	}
	got := sum()
	c.mu.Lock()
	defer c.mu.Unlock()
	if got != want {
		c.t.Errorf("%d events, %d repeats, %d unlisted: %d packets, want %d", c.events, c.repeats, c.unlisted, got, want)
	}
}

func refusing(t testing.TB, opts dataplane.Options) (*dataplane.Dataplane, *runner, packet) {
	opts.Events = dataplane.EventsDenied
	d := newDataplane(t, opts)
	p := packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 81)}
	sync(t, d, isolated(0, p.Destination))
	return d, newRunner(t, d), p
}

func (r *runner) refuses(p packet, times int) {
	r.t.Helper()
	for range times {
		if r.passes(p) {
			r.t.Fatal("a packet passed")
		}
	}
}

func TestRepeatsOfOneRefusalAreCounted(t *testing.T) {
	d, run, p := refusing(t, dataplane.Options{EventRate: 50})
	reported := watchEvents(t, d)
	run.refuses(p, 1000)
	first := nextEvent(t, reported)
	if first.Packets != 1 || first.Bytes == 0 || first.Unlisted || first.First != first.Time {
		t.Errorf("the first packet's event: %+v", first)
	}
	repeats, err := d.Repeats()
	check(t, err)
	if len(repeats) != 1 {
		t.Fatalf("%+v", repeats)
	}
	r := repeats[0]
	if r.Packets != 999 || r.Bytes != 999*first.Bytes || !r.Time.After(r.First) || r.First.Before(first.Time.Add(-time.Second)) {
		t.Errorf("%d packets, %d bytes, from %v to %v", r.Packets, r.Bytes, r.First, r.Time)
	}
	want := first
	want.Source, want.Time, want.First, want.Packets, want.Bytes = r.Source, r.Time, r.First, r.Packets, r.Bytes
	if r != want || r.Source.Addr() != first.Source.Addr() || r.Source.Port() != 0 {
		t.Errorf("got\n%+v, want\n%+v", r, want)
	}
}

func TestARefusalThatGoesOnMakesNoSecondEvent(t *testing.T) {
	d, run, p := refusing(t, dataplane.Options{EventRate: 50})
	c := newTally(t, d)
	run.refuses(p, 2)
	for range 5 { // intervals
		if repeats := c.drain(); len(repeats) != 1 {
			t.Errorf("%+v", repeats)
		}
		run.refuses(p, 3)
	}
	c.adds(17)
	if n := c.inEvents(); n != 1 {
		t.Errorf("%d events", n)
	}
	if repeats := c.drain(); len(repeats) != 0 {
		t.Errorf("an interval without a refusal: %+v", repeats)
	}
	run.refuses(p, 1)
	c.adds(18)
	if n := c.inEvents(); n != 2 {
		t.Errorf("after a pause: %d events", n)
	}
}

func TestAFloodOfDifferentRefusalsIsOneCount(t *testing.T) {
	d, run, p := refusing(t, dataplane.Options{EventRate: 10, EventBurst: 20})
	c := newTally(t, d)
	began := time.Now()
	const packets = 5000
	for i := range packets {
		p.Port = uint16(1000 + i)
		run.refuses(p, 1)
	}
	most := 20 + uint64(10*time.Since(began).Seconds()) + 1
	var sums []events.Event
	for _, e := range c.drain() {
		if e.Unlisted {
			sums = append(sums, e)
		}
	}
	c.adds(packets)
	if n := c.inEvents(); n < 20 || n > most {
		t.Errorf("%d events, want 20 to %d", n, most)
	}
	if len(sums) != 1 {
		t.Fatalf("%+v", sums)
	}
	if s := sums[0]; s.Destination.Addr() != p.Destination || !s.Source.Addr().IsUnspecified() || s.Set != 1 || s.Reason != events.ReasonDefault || s.Verdict != events.Deny {
		t.Errorf("%+v", s)
	}
}

// One pod's flood takes nothing from another's events.
func TestEachPodHasItsOwnRate(t *testing.T) {
	d := newDataplane(t, dataplane.Options{Events: dataplane.EventsDenied, EventRate: 1, EventBurst: 1})
	loud, quiet := packet{Flow: flow("10.0.0.9", "10.0.0.1", policy.TCP, 81)}, packet{Flow: flow("10.0.0.9", "10.0.0.2", policy.TCP, 81)}
	sync(t, d, isolated(0, loud.Destination, quiet.Destination))
	run, reported := newRunner(t, d), watchEvents(t, d)
	run.refuses(loud, 1)
	nextEvent(t, reported)
	loud.Port = 82
	run.refuses(loud, 1)
	run.refuses(quiet, 1)
	for nextEvent(t, reported).Destination.Addr() != quiet.Destination { // the loud one's rate grows again each second
	}
}

func TestEveryPacketIsAccountedForWhateverIsFull(t *testing.T) {
	page := uint32(os.Getpagesize())
	for name, opts := range map[string]dataplane.Options{
		"the ring":                {EventRate: 1_000_000, EventBurst: 1_000_000, Sizes: dataplane.Sizes{EventBytes: page}},
		"the counts":              {EventRate: 1, EventBurst: 1, Sizes: dataplane.Sizes{Repeats: 1}},
		"both":                    {EventRate: 1_000_000, EventBurst: 1_000_000, Sizes: dataplane.Sizes{EventBytes: page, Repeats: 4}},
		"the ring, with no limit": {EventRate: dataplane.Unlimited, Sizes: dataplane.Sizes{EventBytes: page}},
	} {
		t.Run(name, func(t *testing.T) {
			d, run, p := refusing(t, opts)
			const packets = 1000
			for i := range packets {
				p.Port = uint16(1000 + i%100)
				run.refuses(p, 1)
			}
			newTally(t, d).adds(packets) // the ring was not read before
		})
	}
}

// Packets are judged on all CPUs while counts are read, and none is lost or counted twice.
func TestCountsAreExactWhileTheyAreRead(t *testing.T) {
	d, _, p := refusing(t, dataplane.Options{EventRate: 50})
	c := newTally(t, d)
	const packets = 10_000 // one in each run: a run of several that a signal interrupts begins again
	var running stdsync.WaitGroup
	workers := goruntime.NumCPU()
	for range workers {
		running.Go(func() {
			run := newRunner(t, d)
			for range packets {
				o := run.options(p)
				if _, err := d.Program().Run(o); err != nil {
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
	for reading := true; reading; {
		select {
		case <-stop:
			reading = false
		default:
			c.drain()
		}
	}
	c.adds(uint64(workers) * packets)
}

func TestRuleHits(t *testing.T) {
	d := newDataplane(t, dataplane.Options{CountHits: true})
	open, shut := packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 80)}, packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 81)}
	sync(t, d, isolated(0, open.Destination))
	run := newRunner(t, d)
	for range 3 {
		if !run.passes(open) {
			t.Error("refused")
		}
	}
	run.refuses(shut, 2)
	byRule := dataplane.Hit{Rule: 1, Verdict: events.Allow}
	byDefault := dataplane.Hit{Set: 1, Verdict: events.Deny}
	hits, err := d.RuleHits()
	if err != nil || len(hits) != 2 || hits[byRule] != 3 || hits[byDefault] != 2 {
		t.Errorf("%v, %v", hits, err)
	}
	check(t, d.ForgetHits(byRule))
	check(t, d.ForgetHits(byRule))
	if hits, err = d.RuleHits(); err != nil || len(hits) != 1 {
		t.Errorf("%v, %v", hits, err)
	}
}

func TestHitsThatHaveNoRoomAreCounted(t *testing.T) {
	d := newDataplane(t, dataplane.Options{CountHits: true, Sizes: dataplane.Sizes{Hits: 1}})
	open, shut := packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 80)}, packet{Flow: flow("10.0.0.2", "10.0.0.1", policy.TCP, 81)}
	sync(t, d, isolated(compiler.PodFlags(0), open.Destination))
	run := newRunner(t, d)
	run.passes(open)
	run.refuses(shut, 5)
	if counters, err := d.Counters(); err != nil || counters.UnattributedHits != 5 {
		t.Errorf("%d, %v", counters.UnattributedHits, err)
	}
}
