package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// Whatever an address objects' shape writes, a reader finds in it exactly the addresses of each group.
func TestShapesHoldEachGroupsAddresses(t *testing.T) {
	const limit = 10
	rng := rand.New(rand.NewPCG(1, 2))
	packed, byClass := newPacked(limit), newByClass(limit, limit)
	want := map[policy.GroupKey]map[netip.Addr]bool{}
	var all []policy.GroupKey
	for i := range 6 {
		key := policy.GroupKey{Namespace: []string{"a", sharedNamespace}[i%2], Name: fmt.Sprintf("g-%d", i)}
		all = append(all, key)
		want[key] = map[netip.Addr]bool{}
	}
	for range 3000 {
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(60))})
		namespace := all[rng.IntN(2)].Namespace
		var groups []policy.GroupKey
		for _, g := range all {
			if g.Namespace != namespace {
				continue
			}
			if delete(want[g], a); rng.IntN(2) == 0 {
				groups = append(groups, g)
				want[g][a] = true
			}
		}
		packed.move(namespace, a, groups)
		byClass.move(namespace, a, groups)
		packed.take()
		byClass.take()

		for _, g := range all {
			got := map[netip.Addr]bool{}
			for i, s := range packed.groups[g] {
				if s.index != i || len(s.addresses) > limit {
					t.Fatalf("packed: slice %d of %s has index %d and %d addresses", i, g, s.index, len(s.addresses))
				}
				maps.Copy(got, s.addresses)
			}
			expectSame(t, "packed", g, got, want[g])
			got = map[netip.Addr]bool{}
			for i, o := range byClass.pieces[g] {
				if o.pieces[g] != i || o.n > limit {
					t.Fatalf("by class: piece %d of %s has index %d, its object %d addresses", i, g, o.pieces[g], o.n)
				}
				for _, c := range o.classes {
					if slices.Contains(c.groups, g) {
						maps.Copy(got, c.addresses)
					}
				}
			}
			expectSame(t, "by class", g, got, want[g])
		}
	}
}

func expectSame(t *testing.T, shape string, g policy.GroupKey, got, want map[netip.Addr]bool) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Fatalf("%s: group %s has %d addresses, and not the %d that it should have", shape, g, len(got), len(want))
	}
}

func TestShapesCostLessByClass(t *testing.T) {
	l := newLoad(size{20, 100, 2000}, 1)
	costs, err := measureShapes(t.Context(), l, 500)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range costs {
		t.Logf("%s: %d objects, %.2f writes a change, %.0f bytes to an agent", c.name, c.objects, float64(c.writes)/float64(c.changes), c.perAgent(l))
	}
	now, class := costs[0], costs[2]
	if !strings.Contains(class.name, "class") || class.writes >= now.writes || class.objects >= now.objects || class.perAgent(l) >= now.perAgent(l) {
		t.Errorf("today %+v, by class %+v", now, class)
	}
}
