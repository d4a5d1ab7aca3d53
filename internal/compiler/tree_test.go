package compiler

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
)

// Trees do what sets do, equal sets are one tree, and nothing is left of those that nothing holds.
func TestTrees(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	work := 0
	f := newForest[struct{}](&work)
	const holders = 8
	var held [holders]*tree[struct{}]
	sets := [holders]map[uint32]bool{}
	numbers := func(x *tree[struct{}]) []uint32 {
		var out []uint32
		x.each(func(leaf *tree[struct{}]) { out = append(out, leaf.prefix) })
		return out
	}
	sorted := func(s map[uint32]bool) []uint32 { return slices.Sorted(maps.Keys(s)) }
	for range 20_000 {
		i, j, k := rng.IntN(holders), rng.IntN(holders), rng.IntN(holders)
		s := maps.Clone(sets[j])
		if s == nil {
			s = map[uint32]bool{}
		}
		n := rng.Uint32N(24)
		if rng.IntN(2) == 0 {
			n = rng.Uint32()
		}
		x := held[j]
		switch rng.IntN(4) {
		case 0:
			x = f.union(x, held[k])
			maps.Copy(s, sets[k])
		case 1:
			x = f.difference(x, held[k])
			for n := range sets[k] {
				delete(s, n)
			}
		case 2:
			leaf := f.leaf(n)
			x = f.union(x, leaf)
			s[n] = true
		default:
			if len(s) > 0 {
				n = pick(rng, sorted(s))
			}
			leaf := f.leaf(n)
			x = f.difference(x, leaf)
			delete(s, n)
			f.discard(leaf)
		}
		f.replace(&held[i], x)
		sets[i] = s
		if len(s) > 60 {
			f.replace(&held[i], nil)
			sets[i] = nil
		}
		if got := numbers(held[i]); !slices.Equal(got, sorted(sets[i])) {
			t.Fatalf("%v, want %v", got, sorted(sets[i]))
		}
		for o := range holders {
			if same := maps.Equal(sets[i], sets[o]); same != (held[i] == held[o]) {
				t.Fatalf("%v and %v are the same tree: %v", sorted(sets[i]), sorted(sets[o]), !same)
			}
			within := !slices.ContainsFunc(sorted(sets[o]), func(n uint32) bool { return !sets[i][n] })
			if got := held[o].within(held[i]); got != within {
				t.Fatalf("%v within %v: %v", sorted(sets[o]), sorted(sets[i]), got)
			}
		}
	}
	for i := range held {
		f.replace(&held[i], nil)
	}
	if n := len(f.leaves) + len(f.branches); n > 0 {
		t.Errorf("%d nodes are left", n)
	}
}

// The trees above a leaf are those that contain it.
func TestTreesAbove(t *testing.T) {
	work := 0
	f := newForest[struct{}](&work)
	var a, b, c *tree[struct{}]
	f.replace(&a, f.union(f.leaf(1), f.leaf(2)))
	f.replace(&b, f.union(a, f.leaf(9)))
	f.replace(&c, f.union(f.leaf(9), f.leaf(4)))
	above := map[*tree[struct{}]]struct{}{}
	count := 0
	f.leaf(2).eachAbove(above, func(*tree[struct{}]) { count++ })
	if _, ok := above[a]; !ok || count != 3 {
		t.Errorf("%d trees above 2", count)
	}
	if _, ok := above[b]; !ok {
		t.Error("the union with 9 is not above 2")
	}
	if _, ok := above[c]; ok {
		t.Error("{4, 9} is above 2")
	}
	f.leaf(9).eachAbove(above, func(*tree[struct{}]) { count++ })
	if count != 5 {
		t.Errorf("%d trees above 2 and 9", count)
	}
}
