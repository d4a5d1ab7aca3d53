package main

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// observer watches what the controller writes and knows when a pod's change is in all of it.
type observer struct {
	mu     sync.Mutex
	groups map[policy.GroupKey]*groupView
	// waiting are changes by the address that they are about. No two pods have one address.
	waiting map[netip.Addr]*change
	took    durations
	seen    progress
}

// progress is the objects that are there, PolicyEndpoints whose status is about the spec that is there, and when the last change of a
// spec was and of what is told in a status.
type progress struct {
	endpoints, slices, told int
	spec, status            time.Time
}

// groupView is a group as its slices show it.
type groupView struct {
	selector  groupSelector
	addresses map[netip.Addr]int // slices that hold it
}

// change of a pod, and the groups that do not show it yet.
type change struct {
	sent    time.Time
	missing map[policy.GroupKey]bool // whether the address has to come
}

func newObserver() *observer {
	return &observer{groups: map[policy.GroupKey]*groupView{}, waiting: map[netip.Addr]*change{}}
}

// watch follows the objects until the context is done. failed is called if it cannot go on.
func (o *observer) watch(ctx context.Context, client rest.Interface, failed func(error)) error {
	if err := followViews(ctx, client, "policyendpoints", o.seeEndpoint, failed); err != nil {
		return err
	}
	return followViews(ctx, client, "policyendpointslices", o.seeSlice, failed)
}

func (o *observer) seeEndpoint(old, now *view) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case old == nil:
		o.seen.endpoints++
	case now == nil:
		o.seen.endpoints--
	}
	if old == nil || now == nil || old.Metadata.Generation != now.Metadata.Generation {
		o.seen.spec = time.Now()
	}
	if n := told(now) - told(old); n != 0 {
		o.seen.told += n
		o.seen.status = time.Now()
	}
}

// told is 1 if the status is about the spec that is there.
func told(pe *view) int {
	if pe != nil && pe.Status.ObservedGeneration == pe.Metadata.Generation {
		return 1
	}
	return 0
}

func (o *observer) seeSlice(old, now *view) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen.spec = time.Now()
	switch {
	case old == nil:
		o.seen.slices++
	case now == nil:
		o.seen.slices--
	}
	either := now
	if either == nil {
		either = old
	}
	key := policy.GroupKey{Namespace: either.Metadata.Namespace, Name: either.Spec.Group}
	g := o.groups[key]
	if g == nil {
		g = &groupView{addresses: map[netip.Addr]int{}}
		g.selector, _ = parseGroupSelector(key.Namespace, &either.Spec.Selector) // a wrong one is found by expectRight
		o.groups[key] = g
	}
	change := map[v1alpha1.CIDR]int{}
	if now != nil {
		for _, cidr := range now.Spec.Addresses {
			change[cidr]++
		}
	}
	if old != nil {
		for _, cidr := range old.Spec.Addresses {
			change[cidr]--
		}
	}
	for cidr, n := range change {
		if n == 0 {
			continue
		}
		a := addressOf(cidr)
		if g.addresses[a] += n; g.addresses[a] == 0 {
			delete(g.addresses, a)
		}
		if c := o.waiting[a]; c != nil {
			o.settle(a, c, key, g)
		}
	}
}

// settle notes whether a group shows a change now.
func (o *observer) settle(a netip.Addr, c *change, key policy.GroupKey, g *groupView) {
	come, ok := c.missing[key]
	if !ok || come != (g.addresses[a] > 0) {
		return
	}
	delete(c.missing, key)
	if len(c.missing) == 0 {
		o.took = append(o.took, time.Since(c.sent))
		delete(o.waiting, a)
	}
}

// expect has the observer wait for a pod's change; before and after are the pod on either side of it. It must be called before the
// change is sent, and returns the number of groups that change.
func (o *observer) expect(before, after *pod) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	either := after
	if either == nil {
		either = before
	}
	c := &change{missing: map[policy.GroupKey]bool{}}
	for key, g := range o.groups {
		was, is := before != nil && g.selector.selects(before.namespace, before.labels), after != nil && g.selector.selects(after.namespace, after.labels)
		if was != is {
			c.missing[key] = is
		}
	}
	if len(c.missing) > 0 {
		o.waiting[either.address] = c
	}
	c.sent = time.Now()
	return len(c.missing)
}

// outstanding is the number of changes that are not everywhere yet.
func (o *observer) outstanding() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.waiting)
}

// take returns the latencies since it was called last.
func (o *observer) take() durations {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := o.took
	o.took = nil
	return out
}

func (o *observer) progress() progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seen
}

func addressOf(cidr v1alpha1.CIDR) netip.Addr {
	p, _ := netip.ParsePrefix(string(cidr))
	return p.Addr()
}
