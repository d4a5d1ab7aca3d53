//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

const (
	trafficInterval = 300 * time.Millisecond
	probeTimeout    = 3 * time.Second // long enough for a lost SYN to be sent again
)

// A tally counts connections, and exchanges on those that are held.
type tally struct {
	connections int
	passes      int                   // made though no policy allows them
	drops       int                   // not made, or broken, though policies allow them
	wrong       map[string]*wrongFlow // by who called whom
}

// A wrongFlow is what went wrong again and again in the same way.
type wrongFlow struct {
	times       int
	first, last time.Time
}

func (c *tally) add(o tally) {
	c.connections += o.connections
	c.passes += o.passes
	c.drops += o.drops
	for flow, w := range o.wrong {
		c.note(flow, *w)
	}
}

// count judges one attempt.
func (c *tally) count(from string, r reach.Result, allowed bool) {
	c.connections++
	switch {
	case r.Outcome == reach.Open && !allowed:
		c.passes++
	case r.Outcome != reach.Open && allowed:
		c.drops++
	default:
		return
	}
	call, _, _ := strings.Cut(r.Error, " ") // dial, read or write: how far it came
	c.note(fmt.Sprintf("%s → %s (held: %t): %s %s", from, r.Target, r.Held, r.Outcome, call), wrongFlow{1, r.Start, r.Start})
}

func (c *tally) note(flow string, more wrongFlow) {
	w, ok := c.wrong[flow]
	if !ok {
		if c.wrong == nil {
			c.wrong = map[string]*wrongFlow{}
		}
		c.wrong[flow] = &more
		return
	}
	w.times += more.times
	if more.first.Before(w.first) {
		w.first = more.first
	}
	if more.last.After(w.last) {
		w.last = more.last
	}
}

// examples are what went wrong, a line each.
func (c *tally) examples() string {
	var lines []string
	for flow, w := range c.wrong {
		lines = append(lines, fmt.Sprintf("%s – %s, %d times: %s", w.first.Format("15:04:05.000"), w.last.Format("15:04:05.000"), w.times, flow))
	}
	slices.Sort(lines)
	if len(lines) > 20 {
		lines = append(lines[:20], "…")
	}
	return strings.Join(lines, "\n\t")
}

// traffic goes on between all pods of the world, within and across the steady nodes, in both families.
type traffic struct {
	sources []source
}

type source struct {
	pod     *corev1.Pod
	watch   *cluster.Watch
	allowed map[reach.Target]bool
	counted int // results that were taken already
}

func startTraffic(t *testing.T) *traffic {
	t.Helper()
	tr := &traffic{}
	t.Cleanup(func() { tr.stop(t) })
	for _, node := range steady {
		for _, from := range []string{friend, stranger} {
			s := source{pod: member(t, from, node), allowed: map[reach.Target]bool{}}
			var dial, hold []reach.Target
			for _, there := range steady {
				for _, flow := range []struct {
					to, protocol string
					port         uint16
					allowed      bool
				}{
					{server, "tcp", servedPort, from == friend},
					{server, "udp", servedPort, from == friend},
					{server, "tcp", shutPort, false},
					{friend, "tcp", servedPort, from == stranger},
					{stranger, "tcp", servedPort, from == stranger},
				} {
					for _, target := range targets(member(t, flow.to, there), flow.protocol, flow.port) {
						if flow.to == from && there == node {
							continue // a pod always reaches itself
						}
						s.allowed[target] = flow.allowed
						dial = append(dial, target)
						if flow.allowed && flow.protocol == "tcp" {
							hold = append(hold, target)
						}
					}
				}
			}
			var err error
			s.watch, err = test.WatchEvery(context.Background(), trafficInterval, s.pod, dial, hold, probeTimeout)
			must(t, err)
			tr.sources = append(tr.sources, s)
		}
	}
	tr.await(t, 1)
	return tr
}

// await waits until every connection was tried n more times.
func (tr *traffic) await(t *testing.T, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for _, s := range tr.sources {
		must(t, s.watch.Await(ctx, n))
	}
}

// run lets traffic go on for a while.
func (tr *traffic) run(t *testing.T, d time.Duration) {
	t.Helper()
	pause(t, d)
	tr.await(t, 1)
}

// take counts what has been tried since the last call, or the start.
func (tr *traffic) take(t *testing.T) tally {
	t.Helper()
	tr.run(t, probeTimeout+trafficInterval) // attempts that began before now have come to their ends
	var sum tally
	for i := range tr.sources {
		s := &tr.sources[i]
		results := s.watch.Results()
		for _, r := range results[s.counted:] {
			sum.count(s.pod.Name, r, s.allowed[r.Target])
		}
		s.counted = len(results)
	}
	return sum
}

// pause waits for a while in which others are at work.
func pause(t *testing.T, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal(t.Context().Err())
	}
}

func (tr *traffic) stop(t *testing.T) {
	t.Helper()
	for _, s := range tr.sources {
		if _, err := s.watch.Stop(); err != nil {
			t.Error(err)
		}
	}
	tr.sources = nil
}

// dial connects from a pod to targets once, and counts.
func dial(t *testing.T, from *corev1.Pod, allowed bool, to ...reach.Target) tally {
	t.Helper()
	results, err := test.Dial(t.Context(), from, to, probeTimeout)
	must(t, err)
	var sum tally
	for _, r := range results {
		sum.count(from.Name, r, allowed)
	}
	return sum
}

// A canary is a change of a policy: the port that was open to friends is shut, and another opened.
type canary struct {
	open int // index into canaryPorts
}

// toggle makes the change.
func (c *canary) toggle(t *testing.T) {
	t.Helper()
	c.open = 1 - c.open
	p := canaryPolicy()
	p.Spec.Ingress[0].Ports = slices.Clone(p.Spec.Ingress[0].Ports)
	p.Spec.Ingress[0].Ports[0] = tcp(canaryPorts[c.open])
	var last error
	eventually(t, "change policy canary", func(ctx context.Context) error {
		current := canaryPolicy()
		if last = api.Get(ctx, keyOf(current), current); last == nil {
			current.Spec = p.Spec
			last = api.Update(ctx, current)
		}
		return last
	})
}

// await waits until the change is in force at all servers of the steady nodes, and says how long that was after `since`.
func (c *canary) await(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	var servers []*corev1.Pod
	for _, node := range steady {
		servers = append(servers, member(t, server, node))
	}
	return c.awaitAt(t, since, servers...)
}

func (c *canary) awaitAt(t *testing.T, since time.Time, servers ...*corev1.Pod) time.Duration {
	t.Helper()
	clients := []*corev1.Pod{member(t, friend, steady[0]), member(t, friend, steady[1])}
	var round time.Time
	eventually(t, "the change is in force", func(ctx context.Context) error {
		round = time.Now()
		for _, client := range clients {
			var all []reach.Target
			for _, s := range servers {
				all = append(all, append(targets(s, "tcp", canaryPorts[0]), targets(s, "tcp", canaryPorts[1])...)...)
			}
			results, err := test.Dial(ctx, client, all, 500*time.Millisecond)
			if err != nil {
				return err
			}
			for _, r := range results {
				if open := r.Target.Address.Port() == canaryPorts[c.open]; open != (r.Outcome == reach.Open) {
					return fmt.Errorf("%s → %s: %s, want open: %t", client.Name, r.Target, r.Outcome, open)
				}
			}
		}
		return nil
	})
	return max(0, round.Sub(since))
}
