package main

import (
	"io"
	"testing"
	"time"
)

// small is the size of the tests: enough for groups of several slices.
var small = options{seed: 1, memory: size{20, 200, 4000}, changes: 1500, large: 1000}

func TestChangesWriteOnlyThePodsGroups(t *testing.T) {
	l := newLoad(small.memory, small.clusterPolicies, small.seed)
	pods := l.allPods()
	r := fromNothing(l, pods)
	if got := r.Stats(); got.Policies != small.memory.policies || got.Slices <= small.memory.namespaces {
		t.Fatalf("resolved %+v: not every policy, or no namespace with several slices", got)
	}
	c, err := churnMemory(t.Context(), l, r, pods, small.changes) // fails on any other object
	if err != nil {
		t.Fatal(err)
	}
	if c.changes != small.changes || c.slices < c.changes || c.structure == 0 {
		t.Errorf("%d changes wrote %d slices, %d with other groups or lists: the load is too small for this test", c.changes, c.slices, c.structure)
	}
	if c.largest > maxAddresses {
		t.Errorf("a slice of %d addresses was written, of %d at most", c.largest, maxAddresses)
	}
}

func TestANewAddressWritesOneSlice(t *testing.T) {
	out := &report{began: time.Now(), progress: io.Discard}
	if err := caseLargeGroup(t.Context(), small, out); err != nil {
		t.Fatal(err)
	}
}

// The goal of slices by class: docs/decisions/0017-slices-by-class.md.
func TestAPodsChangeWritesFewSlices(t *testing.T) {
	l := newLoad(small.memory, small.clusterPolicies, small.seed)
	pods := l.allPods()
	r := fromNothing(l, pods)
	w, err := countWrites(t.Context(), l, r, pods, small.changes)
	if err != nil {
		t.Fatal(err)
	}
	if n := float64(w.slices) / float64(w.changes); n < 1 || n > 2.5 {
		t.Errorf("a change writes %.2f slices", n)
	}
}

func TestAPodIsAPeerOfAboutTwentyPolicies(t *testing.T) {
	l := newLoad(size{200, 1000, 2000}, 0, 1)
	got, err := measureSharing(l.allPolicies(), l.allPods())
	if err != nil {
		t.Fatal(err)
	}
	if got.policiesPerPod < 15 || got.policiesPerPod > 30 || got.mostUsed < 200 {
		t.Errorf("a pod is a peer of %.1f policies and the most used selector is used by %d", got.policiesPerPod, got.mostUsed)
	}
}

func TestANodeRunsPodsOfOneTeamsNamespaces(t *testing.T) {
	l := newLoad(size{200, 200, 20_000}, 0, 1)
	namespaces := map[string]map[int]bool{}
	for _, p := range l.allPods() {
		if namespaces[p.node] == nil {
			namespaces[p.node] = map[int]bool{}
		}
		namespaces[p.node][p.namespace] = true
	}
	if len(namespaces) != 200 {
		t.Errorf("%d nodes", len(namespaces))
	}
	for node, set := range namespaces {
		if len(set) != teamSize {
			t.Errorf("%s runs pods of %d namespaces", node, len(set))
		}
	}
}
