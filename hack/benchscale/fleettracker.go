package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// fleetTracker records when a pod's change has reached the kernel of every agent that it concerns.
type fleetTracker struct {
	use *fleetUse

	mu      sync.Mutex
	present map[string]map[netip.Addr]bool // by node: the addresses in its kernel
	waiting map[netip.Addr]*fleetChange
	took    durations
	failed  error // of a process whose arrivals cannot be read
}

// fleetChange is a pod's change, and the nodes that it has not reached yet.
type fleetChange struct {
	sent time.Time
	last time.Time // when it reached the last node so far
	// missing: 'a' for an address that has to come, 'g' for one that has to go, 'c' for another class
	missing map[string]byte
}

func newFleetTracker(use *fleetUse, pods []pod) *fleetTracker {
	for i := range pods {
		use.count(&pods[i], 1)
	}
	return &fleetTracker{use: use, present: map[string]map[netip.Addr]bool{}, waiting: map[netip.Addr]*fleetChange{}}
}

// follow reads the arrivals of a process of agents until the context is done. It returns when it has what
// their kernels contain.
func (t *fleetTracker) follow(ctx context.Context, listen string, nodes []string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/arrivals", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	t.mu.Lock()
	for _, n := range nodes {
		t.present[n] = map[netip.Addr]bool{}
	}
	t.mu.Unlock()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && lines.Text() != "" {
		t.see(nodes, lines.Text())
	}
	go func() {
		defer func() { _ = resp.Body.Close() }()
		for lines.Scan() {
			t.see(nodes, lines.Text())
		}
		if ctx.Err() == nil {
			t.fail(fmt.Errorf("the arrivals of %s ended: %v", listen, lines.Err()))
		}
	}()
	return t.err()
}

func (t *fleetTracker) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.failed == nil {
		t.failed = err
	}
}

func (t *fleetTracker) err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.failed
}

// see records a line of arrivals.
func (t *fleetTracker) see(nodes []string, line string) {
	a, err := parseArrival(line)
	if err != nil || a.Agent >= len(nodes) {
		t.fail(fmt.Errorf("arrival %q: %v", line, err))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	node := nodes[a.Agent]
	if a.Present {
		t.present[node][a.Address] = true
	} else {
		delete(t.present[node], a.Address)
	}
	c := t.waiting[a.Address]
	if c == nil {
		return
	}
	at := time.Unix(0, a.At)
	if what := c.missing[node]; what == 0 || at.Before(c.sent) || what == 'a' && !a.Present || what == 'g' && a.Present {
		return
	}
	if at.After(c.last) {
		c.last = at
	}
	delete(c.missing, node)
	t.finish(a.Address, c)
}

// finish ends the wait for a change that has reached every node. The caller holds mu.
func (t *fleetTracker) finish(a netip.Addr, c *fleetChange) {
	if len(c.missing) == 0 {
		t.took = append(t.took, c.last.Sub(c.sent))
		delete(t.waiting, a)
	}
}

// expect waits for a pod's change; see tracker.
func (t *fleetTracker) expect(before, after *pod) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	either := after
	if either == nil {
		either = before
	}
	concerned := t.use.concerned(before, after)
	if before != nil {
		t.use.count(before, -1)
	}
	if after != nil {
		t.use.count(after, 1)
	}
	now := time.Now()
	c := &fleetChange{sent: now, last: now, missing: map[string]byte{}}
	for node := range concerned {
		there, ok := t.present[node]
		if !ok { // no agent runs there
			continue
		}
		is, want := there[either.address], t.wants(node, after)
		switch {
		case is && want:
			c.missing[node] = 'c'
		case is:
			c.missing[node] = 'g'
		case want:
			c.missing[node] = 'a'
		}
	}
	n := len(c.missing)
	if n > 0 {
		t.waiting[either.address] = c
	}
	return n
}

// wants reports whether a node uses a group that a pod is in; nil is in none.
func (t *fleetTracker) wants(node string, p *pod) bool {
	if p == nil {
		return false
	}
	for text, g := range t.use.groups {
		if t.use.nodes[text][node] > 0 && g.selects(p.namespace, p.labels) {
			return true
		}
	}
	return false
}

func (t *fleetTracker) outstanding() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.waiting)
}

func (t *fleetTracker) take() durations {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := t.took
	t.took = nil
	return out
}

// expectRight fails if an agent's kernel has another set of addresses than those of the groups that its node
// uses.
func (t *fleetTracker) expectRight(pods []pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	want := t.use.addresses(pods)
	for node, is := range t.present {
		var lacks, more []netip.Addr
		for a := range want[node] {
			if !is[a] {
				lacks = append(lacks, a)
			}
		}
		for a := range is {
			if podNetwork.Contains(a) && !want[node][a] { // others are blocks of one address
				more = append(more, a)
			}
		}
		if len(lacks)+len(more) > 0 {
			return fmt.Errorf("the kernel of %s lacks %d addresses, such as %v, and has %d that belong to no group in use there, such as %v",
				node, len(lacks), lacks[:min(3, len(lacks))], len(more), more[:min(3, len(more))])
		}
	}
	return nil
}
