package main

import (
	"io"
	"testing"
	"time"
)

// small is the size of the tests: enough for groups of several slices.
var small = options{seed: 1, memory: size{20, 200, 4000}, changes: 1500, large: 1000}

func TestChangesWriteOnlyThePodsGroups(t *testing.T) {
	l := newLoad(small.memory, small.seed)
	pods := l.allPods()
	r := fromNothing(l, pods)
	if got := r.Stats(); got.Policies != small.memory.policies || got.Slices <= got.Groups {
		t.Fatalf("resolved %+v: not every policy, or no group of several slices", got)
	}
	c, err := churnMemory(t.Context(), l, r, pods, small.changes) // fails on any other object
	if err != nil {
		t.Fatal(err)
	}
	if c.changes != small.changes || c.groups < c.changes {
		t.Errorf("%d changes touched %d groups: the load is too small for this test", c.changes, c.groups)
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

// The check in change depends on this.
func TestAGroupThatAPodIsNotInIsAMistake(t *testing.T) {
	l := newLoad(small.memory, small.seed)
	pods := l.allPods()
	r := fromNothing(l, pods)
	stranger := pods[len(pods)-1]
	stranger.labels = map[string]string{}
	stranger.namespace = l.namespaces // that no selector selects
	if w := r.change(&pods[0], nil); w.mistaken != nil || w.groups == 0 {
		t.Fatalf("a pod was deleted: %d groups, %v", w.groups, w.mistaken)
	}
	for group := range r.counts {
		if r.expectTouched(group, &stranger, nil) == nil {
			t.Fatalf("group %s is accepted for a pod that is in no group", group)
		}
	}
}

func TestAPodIsAPeerOfAboutTwentyPolicies(t *testing.T) {
	l := newLoad(size{200, 1000, 2000}, 1)
	got, err := measureSharing(l.allPolicies(), l.allPods())
	if err != nil {
		t.Fatal(err)
	}
	if got.policiesPerPod < 15 || got.policiesPerPod > 30 || got.mostUsed < 200 {
		t.Errorf("a pod is a peer of %.1f policies and the most used selector is used by %d", got.policiesPerPod, got.mostUsed)
	}
}

func TestANodeRunsPodsOfOneTeamsNamespaces(t *testing.T) {
	l := newLoad(size{200, 200, 20_000}, 1)
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
