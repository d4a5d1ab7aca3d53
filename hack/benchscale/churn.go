package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// tracker knows when a pod's change is in everything that it has to be in.
type tracker interface {
	// expect is told of a change just before it is sent, and returns the number of objects that have to change.
	expect(before, after *pod) int
	// outstanding is the number of changes that are not everywhere yet.
	outstanding() int
	// take returns the latencies since it was called last: from the sending of a change until it is in everything.
	take() durations
}

// churned is what came of a churn.
type churned struct {
	rate    int
	changes int
	objects int // that had to change, over all changes
	took    durations
	lost    int // changes that are not everywhere a minute after the last
	behind  time.Duration
	cpu     cpuTimes // used during the churn, until the last change was everywhere
}

// churn sends pod changes at a steady rate, however long each takes to be everywhere: of five, two pods come, two go and one is relabelled.
// Every fiftieth is about a DNS pod, which a fifth of all policies name.
func (c *cluster) churn(ctx context.Context, t tracker, rate int, length time.Duration) (churned, error) {
	out := churned{rate: rate}
	var (
		mu        sync.Mutex // of what follows
		firstErr  error
		recent    []pod // a pod is changed once in a churn
		inFlight  sync.WaitGroup
		departed  []pod
		sendDelay time.Duration
	)
	send := func(before, after *pod, do func() error) {
		n := t.expect(before, after)
		err := do()
		mu.Lock()
		defer mu.Unlock()
		out.objects += n
		if after != nil {
			recent = append(recent, *after)
		}
		if err != nil && firstErr == nil {
			firstErr = err
		}
	}
	begin, cpu := time.Now(), cpuNow()
	n := int(length.Seconds() * float64(rate))
	for i := range n {
		due := begin.Add(time.Duration(i) * time.Second / time.Duration(rate))
		select {
		case <-ctx.Done():
			return out, context.Cause(ctx)
		case <-time.After(time.Until(due)):
		}
		sendDelay = max(sendDelay, time.Since(due))
		var old pod
		var next pod
		switch i % 5 {
		case 0, 3: // goes
			old = c.takePod(i)
			departed = append(departed, old)
		case 1, 4: // comes in the place of one that has gone
			old = departed[0]
			departed = departed[1:]
			next = c.pod(old.namespace, old.index)
		case 2:
			old = c.takePod(i)
			next = old.relabelled(c.rng)
			for next.labels["app"] == old.labels["app"] {
				next = old.relabelled(c.rng)
			}
		}
		inFlight.Go(func() {
			switch i % 5 {
			case 0, 3:
				send(&old, nil, func() error { return c.deletePod(ctx, &old) })
			case 1, 4:
				created, err := c.createPod(ctx, &next)
				if err != nil {
					created = nil
				}
				send(nil, &next, func() error {
					if created == nil {
						return err
					}
					return c.runPod(ctx, created, &next)
				})
			case 2:
				send(&old, &next, func() error { return c.relabelPod(ctx, &next) })
			}
		})
	}
	inFlight.Wait()
	c.pods = append(c.pods, recent...)
	if firstErr != nil {
		return out, fmt.Errorf("change a pod: %w", firstErr)
	}
	out.changes, out.behind = n, sendDelay
	_ = poll(ctx, time.Minute, 10*time.Millisecond, func() error {
		if n := t.outstanding(); n > 0 {
			return fmt.Errorf("%d changes are not everywhere", n)
		}
		return nil
	})
	out.lost, out.took, out.cpu = t.outstanding(), t.take(), cpuNow().since(cpu)
	return out, context.Cause(ctx)
}

// takePod takes a pod out of those that may be changed. Teams take turns, so that each node's agent is about as much concerned.
func (c *cluster) takePod(i int) pod {
	teams := max(1, c.namespaces/teamSize)
	team := c.taken % teams
	c.taken++
	k := c.rng.IntN(len(c.pods))
	for n := 0; c.pods[k].namespace/teamSize != team && n < 100*teams; n++ {
		k = c.rng.IntN(len(c.pods))
	}
	if i%50 == 0 {
		for j := range c.pods {
			if c.pods[j].labels["app"] == "dns" {
				k = j
				break
			}
		}
	}
	p := c.pods[k]
	c.pods[k] = c.pods[len(c.pods)-1]
	c.pods = c.pods[:len(c.pods)-1]
	return p
}
