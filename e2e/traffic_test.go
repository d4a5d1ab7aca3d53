//go:build e2e

package e2e

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
	"github.com/kidoban/kidoban/e2e/reach"
)

// probeTimeout is long enough for a lost SYN to be sent again.
const probeTimeout = 3 * time.Second

// traffic is connections between the shop's pods that go on while something else happens.
type traffic struct {
	sources []string // names of pods
	watches []*cluster.Watch
	allowed []map[reach.Target]bool
	stopped bool
}

// startTraffic connects again and again, by Pod IP, from every pod of a workload to the ports given, both those that
// policies allow and those that they do not, and holds one connection to each TCP port that they allow.
func startTraffic(t *testing.T, tables []*matrix.Table, from string, to ...matrix.Column) *traffic {
	t.Helper()
	tr := &traffic{}
	t.Cleanup(func() { tr.stop(t) })
	for _, pod := range pods(t, from) {
		allowed := map[reach.Target]bool{}
		var dial, hold []reach.Target
		for _, p := range tables[0].Probes {
			if p.Source.Name != pod.Namespace+"/"+pod.Name || !slices.Contains(to, p.Endpoint.Column) {
				continue
			}
			target := p.Endpoint.Target
			allowed[target] = p.Allowed
			dial = append(dial, target)
			if p.Allowed && target.Protocol == "tcp" {
				hold = append(hold, target)
			}
		}
		watch, err := test.Watch(context.Background(), &pod, dial, hold, probeTimeout)
		if err != nil {
			t.Fatal(err)
		}
		tr.sources = append(tr.sources, pod.Name)
		tr.watches = append(tr.watches, watch)
		tr.allowed = append(tr.allowed, allowed)
	}
	tr.await(t, 1)
	return tr
}

// await waits until every connection was tried n more times.
func (tr *traffic) await(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, watch := range tr.watches {
		if err := watch.Await(ctx, n); err != nil {
			t.Fatal(err)
		}
	}
}

// stop ends the traffic. Every connection that was allowed must have been made, none that was not, and the ones held must
// have lasted.
func (tr *traffic) stop(t *testing.T) {
	t.Helper()
	if tr.stopped {
		return
	}
	tr.stopped = true
	for i, watch := range tr.watches {
		results, err := watch.Stop()
		if err != nil {
			t.Error(err)
		}
		wrong := 0
		for _, r := range results {
			want := reach.TimedOut
			if tr.allowed[i][r.Target] {
				want = reach.Open
			}
			if r.Outcome != want {
				wrong++
				if wrong <= 10 {
					t.Errorf("%s: %s → %s (held: %t): %s %s, want %s", r.Start.Format("15:04:05.000"), tr.sources[i], r.Target, r.Held, r.Outcome, r.Error, want)
				}
			}
		}
		t.Logf("%s: %d connections, %d not as the policies say", tr.sources[i], len(results), wrong)
	}
}
