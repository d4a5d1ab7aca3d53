package main

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// tracker records when a pod's change has reached every object that it concerns.
type tracker interface {
	// expect must be called just before a change is sent. It returns the number of objects that have to
	// change.
	expect(before, after *pod) int
	// outstanding is the number of changes that have not reached every object yet.
	outstanding() int
	// take returns the latencies since the last call: from the sending of a change until it has reached every
	// object.
	take() durations
}

// churned is the result of a churn.
type churned struct {
	rate    int
	changes int
	objects int // sum over all changes of the objects that had to change
	took    durations
	lost    int // changes that have not reached every object a minute after the last one
	behind  time.Duration
	cpu     cpuTimes // used until the last change had reached every object
}

// churn sends pod changes at a steady rate that does not depend on latencies: of five, two delete a pod, two
// create its successor and one relabels a pod. Every fiftieth concerns a DNS pod, which is a peer of a fifth
// of all policies.
func (c *cluster) churn(ctx context.Context, t tracker, rate int, length time.Duration) (churned, error) {
	out := churned{rate: rate}
	var (
		mu        sync.Mutex // guards the following
		firstErr  error
		recent    []pod // each pod is changed once in a churn
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
		case 0, 3: // delete
			old = c.takePod(i)
			departed = append(departed, old)
		case 1, 4: // create the successor of a deleted pod
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
			return fmt.Errorf("%d changes have not reached every object", n)
		}
		return nil
	})
	out.lost, out.took, out.cpu = t.outstanding(), t.take(), cpuNow().since(cpu)
	return out, context.Cause(ctx)
}

// takePod removes a pod from those that may be changed. Teams take turns, so that all nodes' agents receive
// about the same number of changes.
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
