package main

import (
	"net/netip"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
)

// members knows who is in each group by the objects that hold their addresses, and when a pod's change is in all of them.
type members struct {
	mu     sync.Mutex
	groups map[policy.GroupKey]*groupView
	// waiting are changes by the address that they are about. No two pods have one address.
	waiting map[netip.Addr]*change
	took    durations
}

// groupView is a group as its objects show it.
type groupView struct {
	selector  groupSelector
	addresses map[netip.Addr]int // objects that hold it
}

// change of a pod, and the groups that do not show it yet.
type change struct {
	sent    time.Time
	missing map[policy.GroupKey]bool // whether the address has to come
}

func newMembers() members {
	return members{groups: map[policy.GroupKey]*groupView{}, waiting: map[netip.Addr]*change{}}
}

// see notes that an object of a group holds these addresses now, and held others before. The caller has the lock.
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
			m.settle(a, c, key, g)
		}
	}
}

// settle notes whether a group shows a change now.
func (m *members) settle(a netip.Addr, c *change, key policy.GroupKey, g *groupView) {
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

// expect waits for a pod's change; before and after are the pod on either side of it. It must be called before the
// change is sent, and returns the number of groups that change.
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
		if g.selector.namespaces == nil && key.Namespace != namespace { // to ask thousands takes time from those that are measured
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

// outstanding is the number of changes that are not everywhere yet.
func (m *members) outstanding() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.waiting)
}

// take returns the latencies since it was called last.
func (m *members) take() durations {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.took
	m.took = nil
	return out
}
