//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// TestLatency applies policies while a pod of another node connects every few milliseconds, and takes the time from the call of the API until the first
// connection that goes otherwise, after which all do.
func TestLatency(t *testing.T) {
	rounds := 50
	if testing.Short() {
		rounds = 5
	}
	caller := member(t, stranger, steady[0])
	called := startPod(t, servingPod("latency", "latency", steady[1]))
	open := targets(called, "tcp", servedPort)[:1]
	policy := func() *networkingv1.NetworkPolicy { return ingress("latency", "latency", friend, tcp(servedPort)) }

	w, err := test.WatchEvery(context.Background(), 5*time.Millisecond, caller, open, nil, 250*time.Millisecond)
	must(t, err)
	defer func() {
		_, err := w.Stop()
		must(t, err)
	}()
	timed := func(what string, change func(), first func(results []reach.Result) (time.Time, bool)) time.Duration {
		t.Helper()
		await(t, w, 60) // in a steady state
		start := time.Now()
		change()
		var took time.Duration
		eventually(t, "time to "+what, func(context.Context) error {
			results := slices.DeleteFunc(w.Results(), func(r reach.Result) bool { return r.Start.Before(start) })
			slices.SortFunc(results, func(a, b reach.Result) int { return a.Start.Compare(b.Start) })
			at, found := first(results)
			if !found {
				return fmt.Errorf("not after %d attempts", len(results))
			}
			took = at.Sub(start)
			return nil
		})
		return took
	}
	isOpen := func(r reach.Result) bool { return r.Outcome == reach.Open }
	// The first that is open: none was.
	firstOpen := func(results []reach.Result) (time.Time, bool) {
		i := slices.IndexFunc(results, isOpen)
		if i < 0 {
			return time.Time{}, false
		}
		return results[i].Start, true
	}
	// The first after the last that was open, if there have been many since.
	firstRefused := func(results []reach.Result) (time.Time, bool) {
		i := len(results)
		for i > 0 && !isOpen(results[i-1]) {
			i--
		}
		if len(results)-i < 20 {
			return time.Time{}, false
		}
		return results[i].Start, true
	}
	var deny, allow []time.Duration
	for range rounds {
		p := policy()
		deny = append(deny, timed("deny", func() { must(t, api.Create(t.Context(), p)) }, firstRefused))
		allow = append(allow, timed("allow", func() { must(t, api.Delete(t.Context(), p)) }, firstOpen))
	}
	var b strings.Builder
	b.WriteString("| | p50 | p99 | longest | of |\n|---|---:|---:|---:|---:|\n")
	for _, m := range []struct {
		name  string
		times []time.Duration
	}{
		{"time to deny: from the call that creates a policy to the first connection refused", deny},
		{"time to allow: from the call that deletes it to the first connection made", allow},
	} {
		slices.Sort(m.times)
		at := func(share float64) time.Duration {
			return m.times[min(len(m.times)-1, int(share*float64(len(m.times))))]
		}
		fmt.Fprintf(&b, "| %s | %d ms | %d ms | %d ms | %d |\n", m.name, at(.5).Milliseconds(), at(.99).Milliseconds(), at(1).Milliseconds(), len(m.times))
	}
	t.Logf("\n%s", b.String())
	if file := os.Getenv("CHAOS_REPORT"); file != "" && !testing.Short() {
		must(t, writeSection(file, "latency", b.String()))
	}
}

func await(t *testing.T, w *cluster.Watch, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	must(t, w.Await(ctx, n))
}
