package oracle

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
)

// FlowsPerScenario is the number of flows that each scenario is asked about.
const FlowsPerScenario = 200

// Options of a run.
type Options struct {
	// Seed draws the scenarios, together with their number.
	Seed uint64
	// Flows to draw at least; from 1.
	Flows int64
	// Workers that run at the same time; from 1.
	Workers int
	// Progress is called now and then, by any worker, with the number of flows so far. It may be nil.
	Progress func(flows int64)
}

// Stats counts what was compared.
type Stats struct {
	Scenarios, Flows int64
	// Comparisons by judge; each flow comes to one in each direction.
	Comparisons map[string]int64
	// Isolated and Allowed are the directions of flows about which a policy decides, and of these what one allows.
	Isolated, Allowed int64
	// Denied is by tier.
	Denied map[string]int64
	// Quirks are the scenarios that were adapted for one, by judge and quirk.
	Quirks map[string]int64
}

// NewStats returns Stats that count nothing yet.
func NewStats() Stats {
	return Stats{Comparisons: map[string]int64{}, Denied: map[string]int64{}, Quirks: map[string]int64{}}
}

func (s *Stats) add(t Stats) {
	s.Scenarios += t.Scenarios
	s.Flows += t.Flows
	s.Isolated += t.Isolated
	s.Allowed += t.Allowed
	for k, n := range t.Comparisons {
		s.Comparisons[k] += n
	}
	for k, n := range t.Denied {
		s.Denied[k] += n
	}
	for k, n := range t.Quirks {
		s.Quirks[k] += n
	}
}

// String is a table for people.
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d flows of %d scenarios, each in both directions; a policy decides about %d, of which one allows %d\n", s.Flows, s.Scenarios, s.Isolated, s.Allowed)
	for _, k := range slices.Sorted(maps.Keys(s.Denied)) {
		fmt.Fprintf(&b, "%12d denied by tier  %s\n", s.Denied[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Comparisons)) {
		fmt.Fprintf(&b, "%12d comparisons  %s\n", s.Comparisons[k], k)
	}
	for _, k := range slices.Sorted(maps.Keys(s.Quirks)) {
		fmt.Fprintf(&b, "%12d scenarios adapted  %s\n", s.Quirks[k], k)
	}
	return b.String()
}

// Failure is a difference and where it was found.
type Failure struct {
	Seed, Iteration uint64
	*Difference
}

// Error is a report. It is a Recorded scenario too, as testdata keeps them.
func (f *Failure) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# seed %d, iteration %d: %s differs\n", f.Seed, f.Iteration, f.Who)
	if f.Flow != (policy.Flow{}) {
		fmt.Fprintf(&b, "# %v of %v %v -> %v port %d\n", f.Direction, f.Flow.Protocol, f.Flow.Source, f.Flow.Destination, f.Flow.Port)
	}
	for line := range strings.Lines(f.Answers) {
		b.WriteString("# " + line)
	}
	out, err := yaml.Marshal(Recorded{Flow: f.Flow, Events: f.Scenario.Events})
	if err != nil {
		out = []byte(err.Error())
	}
	return b.String() + string(out)
}

// Recorded is a scenario with a flow on which the judges once differed.
type Recorded struct {
	Flow   policy.Flow `json:"flow"`
	Events []Event     `json:"events"`
}

// Judge asks about the flow, and about others that are drawn for the scenario.
func (r *Recorded) Judge() *Difference {
	s := &Scenario{Events: r.Events}
	c, diff := convene(s)
	if diff == nil && r.Flow != (policy.Flow{}) {
		diff = c.ask(r.Flow, nil)
	}
	if diff == nil {
		stats := NewStats()
		diff = judgeScenario(newDice(1, 1), s, &stats)
	}
	return diff
}

// Run draws and compares until it has done the flows, the context ends, or a difference is found.
func Run(ctx context.Context, o Options) (Stats, *Failure) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	iterations := (o.Flows + FlowsPerScenario - 1) / FlowsPerScenario
	var next, flows atomic.Int64
	var mu sync.Mutex
	var first *Failure
	total := NewStats()
	var workers sync.WaitGroup
	for range o.Workers {
		workers.Go(func() {
			stats := NewStats()
			for i := next.Add(1) - 1; i < iterations && ctx.Err() == nil; i = next.Add(1) - 1 {
				diff := Iterate(o.Seed, uint64(i), &stats)
				if n := flows.Add(FlowsPerScenario); o.Progress != nil && i%64 == 0 {
					o.Progress(n)
				}
				if diff != nil {
					cancel()
					mu.Lock()
					if first == nil || uint64(i) < first.Iteration {
						first = &Failure{o.Seed, uint64(i), diff}
					}
					mu.Unlock()
				}
			}
			mu.Lock()
			total.add(stats)
			mu.Unlock()
		})
	}
	workers.Wait()
	return total, first
}

// Iterate draws one scenario and its flows.
func Iterate(seed, iteration uint64, stats *Stats) *Difference {
	d := newDice(seed, iteration)
	s := d.history(d.objects())
	return judgeScenario(d, s, stats)
}

func judgeScenario(d *dice, s *Scenario, stats *Stats) *Difference {
	c, diff := convene(s)
	if diff != nil {
		return diff
	}
	stats.Scenarios++
	for _, q := range c.quirks {
		stats.Quirks[q]++
	}
	counts := make([]int64, len(c.seats))
	flows := newFlows(d, c.cluster)
	for range FlowsPerScenario {
		stats.Flows++
		diff := c.ask(flows.flow(), func(seat int, v verdict) {
			counts[seat]++
			if seat > 0 || v.why == notIsolated {
				return
			}
			stats.Isolated++
			if v.allowed {
				stats.Allowed++
			} else {
				stats.Denied[v.tier]++
			}
		})
		if diff != nil {
			return diff
		}
	}
	for i, n := range counts {
		stats.Comparisons[c.seats[i].name] += n
	}
	return nil
}
