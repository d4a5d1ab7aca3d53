package main

import (
	"net/netip"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
)

// members records the addresses of each group, by the objects that contain them, and when a pod's change has
// reached all groups.
type members struct {
	mu     sync.Mutex
	groups map[policy.GroupKey]*groupView
	// waiting are changes by the address that they are about. No two pods have one address.
	waiting map[netip.Addr]*change
	took    durations
}

// groupView is a group by its objects.
type groupView struct {
	selector  groupSelector
	addresses map[netip.Addr]int // number of objects that contain it
}

// change is a pod's change, and the groups that it has not reached yet.
type change struct {
	sent    time.Time
	missing map[policy.GroupKey]bool // whether the address has to be added
}

func newMembers() members {
	return members{groups: map[policy.GroupKey]*groupView{}, waiting: map[netip.Addr]*change{}}
}

// see records the addresses of a group's object, and the addresses that it had before. The caller holds the
// lock.
func see[S ~string](m *members, key policy.GroupKey, g *groupView, parse func(S) netip.Addr, old, now []S) {
	difference := map[S]int{}
	for _, text := range now {
		difference[text]++
	}
	for _, text := range old {
		difference[text]--
	}
	for text, n := range difference {
		if n == 0 {
			continue
		}
		a := parse(text)
		if g.addresses[a] += n; g.addresses[a] == 0 {
			delete(g.addresses, a)
		}
		if c := m.waiting[a]; c != nil {
			m.check(a, c, key, g)
		}
	}
}

// check records whether a change has reached a group.
func (m *members) check(a netip.Addr, c *change, key policy.GroupKey, g *groupView) {
	come, ok := c.missing[key]
	if !ok || come != (g.addresses[a] > 0) {
		return
	}
	delete(c.missing, key)
	if len(c.missing) == 0 {
		m.took = append(m.took, time.Since(c.sent))
		delete(m.waiting, a)
	}
}

// expect waits for a pod's change; before and after are the pod on either side of it. It must be called
// before the change is sent, and returns the number of groups that change.
func (m *members) expect(before, after *pod) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	either := after
	if either == nil {
		either = before
	}
	c := &change{missing: map[policy.GroupKey]bool{}}
	namespace := namespaceName(either.namespace)
	for key, g := range m.groups {
		if g.selector.namespaces == nil && key.Namespace != namespace { // evaluating thousands of selectors takes CPU time from what is measured
			continue
		}
		was, is := before != nil && g.selector.selects(before.namespace, before.labels), after != nil && g.selector.selects(after.namespace, after.labels)
		if was != is {
			c.missing[key] = is
		}
	}
	if len(c.missing) > 0 {
		m.waiting[either.address] = c
	}
	c.sent = time.Now()
	return len(c.missing)
}

// outstanding is the number of changes that have not reached every group yet.
func (m *members) outstanding() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// take returns the latencies since the last call.
func (m *members) take() durations {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.took
	m.took = nil
	return out
}
