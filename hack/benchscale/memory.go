package main

import (
	"context"
	"fmt"
	"runtime"
	"runtime/metrics"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/resolver"
)

// sharedNamespace is kidoban's namespace.
const sharedNamespace = "kidoban-system"

// maxAddresses of a slice: the controller's default.
const maxAddresses = 100

// memoryCases are the cases without an API server.
func memoryCases(ctx context.Context, o options, out *report) error {
	if err := caseResolver(ctx, o, out); err != nil {
		return err
	}
	return caseLargeGroup(ctx, o, out)
}

func newResolver() *resolver.Resolver {
	return resolver.New(resolver.Options{SharedNamespace: sharedNamespace, MaxAddresses: maxAddresses})
}

// resolved is a resolver that has resolved a load, and the cost of that.
type resolved struct {
	*resolver.Resolver
	took       time.Duration
	heap, peak uint64 // bytes: live afterwards, and the maximum
}

// fromNothing resolves a cluster and reads every resulting object.
func fromNothing(l *load, pods []pod) *resolved {
	policies := l.allPolicies()
	watch := watchHeap()
	begin := time.Now()
	r := newResolver()
	for ns := range l.namespaces {
		r.SetNamespace(namespaceName(ns), namespaceLabels(ns))
	}
	for _, np := range policies {
		r.SetPolicy(np)
	}
	for _, np := range l.allClusterPolicies() {
		r.SetClusterPolicy(np)
	}
	for i := range pods {
		r.SetPod(pods[i].forResolver())
	}
	changes := r.Start(resolver.Existing{})
	out := &resolved{Resolver: r}
	for _, name := range changes.Endpoints {
		r.Endpoint(name)
	}
	for _, name := range changes.ClusterEndpoints {
		r.ClusterEndpoint(name)
	}
	for _, c := range changes.Slices {
		r.Slice(c.Name)
	}
	out.took = time.Since(begin)
	out.peak = watch()
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	out.heap = stats.HeapAlloc
	return out
}

// watchHeap samples the heap's objects, garbage included, until the function that it returns is called.
func watchHeap() (peak func() uint64) {
	stop, done := make(chan struct{}), make(chan uint64)
	runtime.GC()
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
		var most uint64
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				done <- most
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-done
	}
}

// written are the slices that one change made different.
type written struct {
	took      time.Duration
	cpu       time.Duration // CPU time of this thread, without the time of other processes
	slices    int
	structure int // slices that appeared or disappeared, or whose groups or lists changed
	largest   int // addresses of the largest slice
	mistaken  error
}

func (r *resolved) apply(before, after *pod) resolver.Changes {
	if after == nil {
		return r.DeletePod(before.key())
	}
	return r.SetPod(after.forResolver())
}

// change makes one change and reads the objects that become different, as the controller does; the time
// covers both. before and after are the pod before and after the change, nil if there is none.
func (r *resolved) change(before, after *pod) written {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, cpu := time.Now(), threadTime()
	changes := r.apply(before, after)
	w := written{}
	for _, c := range changes.Slices {
		s, _ := r.Slice(c.Name)
		w.largest = max(w.largest, len(s.Addresses))
	}
	w.took, w.cpu, w.slices = time.Since(begin), threadTime()-cpu, len(changes.Slices)

	if len(changes.Endpoints) > 0 {
		w.mistaken = fmt.Errorf("a pod changed and %d PolicyEndpoints did", len(changes.Endpoints))
	}
	either := after
	if either == nil {
		either = before
	}
	plain := 0
	for _, c := range changes.Slices {
		if c.Structure {
			w.structure++
		} else if plain++; plain > 1 {
			w.mistaken = fmt.Errorf("the addresses of %d slices changed with one pod", plain)
		}
		if ns := c.Name.Namespace; ns != sharedNamespace && ns != namespaceName(either.namespace) {
			w.mistaken = fmt.Errorf("a slice of namespace %s changed with a pod of %s", ns, namespaceName(either.namespace))
		}
	}
	return w
}

// churn is the result of many changes.
type churn struct {
	took, cpu       map[string]durations // by kind of change
	changes, slices int
	structure       int
	largest         int
}

// churnMemory adds, relabels and deletes pods, n times in all.
func churnMemory(ctx context.Context, l *load, r *resolved, pods []pod, n int) (churn, error) {
	c := churn{took: map[string]durations{}, cpu: map[string]durations{}}
	pods = append([]pod(nil), pods...)
	for i := range n {
		if ctx.Err() != nil {
			return c, ctx.Err()
		}
		var before, after *pod
		k := l.rng.IntN(len(pods))
		what := []string{"added", "relabelled", "deleted"}[i%3]
		switch what {
		case "added":
			p := l.pod(pods[k].namespace, l.rng.IntN(1000)+5)
			pods = append(pods, p)
			after = &p
		case "relabelled":
			old, now := pods[k], pods[k].relabelled(l.rng)
			pods[k] = now
			before, after = &old, &now
		case "deleted":
			old := pods[k]
			before = &old
			pods[k] = pods[len(pods)-1]
			pods = pods[:len(pods)-1]
		}
		w := r.change(before, after)
		if w.mistaken != nil {
			return c, fmt.Errorf("a pod was %s: %w", what, w.mistaken)
		}
		c.took[what] = append(c.took[what], w.took)
		c.cpu[what] = append(c.cpu[what], w.cpu)
		c.changes++
		c.slices += w.slices
		c.structure += w.structure
		c.largest = max(c.largest, w.largest)
	}
	return c, nil
}

func caseResolver(ctx context.Context, o options, out *report) error {
	l := newLoad(o.memory, o.clusterPolicies, o.seed)
	pods := l.allPods()
	shared, err := measureSharing(l.allPolicies(), pods)
	if err != nil {
		return err
	}
	out.logf("in memory: resolving %s", o.words(o.memory))
	r := fromNothing(l, pods)
	stats := r.Stats()
	out.note("In memory: %s; a pod is a peer of %.1f policies on average, the most used selector is used by %s; the selectors come to %s groups with %s addresses in %s slices.",
		o.words(o.memory), shared.policiesPerPod, thousands(shared.mostUsed), thousands(stats.Groups), thousands(stats.Addresses), thousands(stats.Slices))
	out.add(row{"in memory", o.words(o.memory) + ", from nothing", ratioOf(r.took, 10*time.Second), short(r.took), "10 s"})
	out.add(row{"in memory", "heap afterwards (at its peak, with garbage: " + mebibytes(r.peak) + ")", float64(r.heap) / (1 << 30), mebibytes(r.heap), "1 GiB"})

	out.logf("in memory: %d changes", o.changes)
	c, err := churnMemory(ctx, l, r, pods, o.changes)
	if err != nil {
		return err
	}
	for _, what := range []string{"added", "relabelled", "deleted"} {
		out.add(changeRow("one pod "+what, c.took[what], c.cpu[what]))
	}
	out.note("The %s changes wrote %s slices: one for a pod that enters or leaves groups, and others with lists of slices. In %s of them the groups or the lists of slices changed.",
		thousands(c.changes), thousands(c.slices), thousands(c.structure))
	return nil
}

// changeRow holds the 99th percentile of the time that passed against the bar.
func changeRow(what string, took, cpu durations) row {
	p99 := took.percentile(99)
	return row{"in memory", fmt.Sprintf("%s, p99 of %s (p50 %s; CPU time p50 %s, p99 %s)", what, thousands(len(took)), short(took.percentile(50)), short(cpu.percentile(50)), short(cpu.percentile(99))),
		ratioOf(p99, 5*time.Millisecond), short(p99), "5 ms"}
}

// threadTime is the CPU time that the calling thread has had.
func threadTime() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // every Linux has it
	return time.Duration(t.Nano())
}

// caseLargeGroup adds pods, one at a time, to a group of all the pods of all namespaces.
func caseLargeGroup(ctx context.Context, o options, out *report) error {
	out.logf("in memory: one group of %s addresses", thousands(o.large))
	r, l := newLargeGroup(o)
	var took, cpu durations
	slices, largest, structure := 0, 0, 0
	for i := range o.changes {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		p := l.pod(i%l.namespaces, 0)
		w := r.change(nil, &p)
		if w.mistaken != nil {
			return w.mistaken
		}
		took, cpu = append(took, w.took), append(cpu, w.cpu)
		slices += w.slices
		structure += w.structure
		largest = max(largest, w.largest)
	}
	out.add(changeRow(fmt.Sprintf("one address added to a group of %s", thousands(o.large)), took, cpu))
	out.add(row{"in memory", fmt.Sprintf("addresses of the largest slice written (%s slices for %s addresses: one for each, and the one with the list for each new slice)", thousands(slices), thousands(o.changes)),
		float64(largest) / 250, thousands(largest), "250"})
	if slices > o.changes+structure {
		return fmt.Errorf("%d addresses were added and %d slices written, of which %d have other groups or lists", o.changes, slices, structure)
	}
	return nil
}

func newLargeGroup(o options) (*resolved, *load) {
	l := newLoad(size{namespaces: 100, policies: 100, pods: o.large}, 0, o.seed)
	r := &resolved{Resolver: newResolver()}
	for ns := range l.namespaces {
		r.SetNamespace(namespaceName(ns), namespaceLabels(ns))
	}
	r.SetPolicy(everyPod())
	for _, p := range l.allPods() {
		r.SetPod(p.forResolver())
	}
	r.Start(resolver.Existing{})
	return r, l
}
