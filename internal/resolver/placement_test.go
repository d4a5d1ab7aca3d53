package resolver

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func addr(i int) address {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).As16()
}

// touch collects which slices an update calls different.
func touch(p *placement, remove, add []address) []int32 {
	var out []int32
	p.update(remove, add, func(i int32) { out = append(out, i) })
	slices.Sort(out)
	return slices.Compact(out)
}

func filled(max, n int) *placement {
	p := newPlacement(max)
	for i := range n {
		p.update(nil, []address{addr(i)}, func(int32) {})
	}
	return p
}

func TestAddressesFillFreePlacesFirst(t *testing.T) {
	p := filled(4, 10) // 4, 4, 2
	if got := touch(p, []address{addr(1)}, nil); !slices.Equal(got, []int32{0}) {
		t.Errorf("the removal touched %v", got)
	}
	if got := touch(p, nil, []address{addr(100)}); !slices.Equal(got, []int32{0}) {
		t.Errorf("the addition touched %v, want the slice with the free place", got)
	}
}

func TestAPodBeyondTheFullSlicesTouchesANewSliceAndTheFirst(t *testing.T) {
	p := filled(4, 8)
	if got := touch(p, nil, []address{addr(100)}); !slices.Equal(got, []int32{0, 2}) {
		t.Errorf("touched %v, want the new slice and the first one, which counts it", got)
	}
}

func TestBothAddressesOfAPodShareASlice(t *testing.T) {
	p := filled(4, 7) // one place free
	two := []address{addr(100), addr(101)}
	touch(p, nil, two)
	if got := touch(p, two, nil); len(got) != 1 {
		t.Errorf("its removal touched %v, want one slice", got)
	}
}

func TestAnAddressOfTwoPodsStaysUntilBothAreGone(t *testing.T) {
	p := newPlacement(4)
	touch(p, nil, []address{addr(1)})
	if got := touch(p, nil, []address{addr(1)}); got != nil {
		t.Errorf("the second pod touched %v", got)
	}
	if got := touch(p, []address{addr(1)}, nil); got != nil || len(p.members) != 1 {
		t.Errorf("the first pod's removal touched %v", got)
	}
	if got := touch(p, []address{addr(1)}, nil); !slices.Equal(got, []int32{0}) || len(p.members) != 0 {
		t.Errorf("the second pod's removal touched %v", got)
	}
}

func TestAReplacedAddressTakesThePlaceOfTheOld(t *testing.T) {
	p := filled(4, 12)
	if got := touch(p, []address{addr(5)}, []address{addr(100)}); !slices.Equal(got, []int32{1}) {
		t.Errorf("touched %v", got)
	}
}

func TestSlicesMergeWithoutStorms(t *testing.T) {
	const size = 100
	p := filled(size, 20*size)
	rng := rand.New(rand.NewPCG(1, 1))
	order := rng.Perm(20 * size)
	writes, merges := 0, 0
	for _, i := range order {
		before := len(p.slices)
		n := len(touch(p, []address{addr(i)}, nil))
		writes += n
		if len(p.slices) < before {
			merges++
		} else if n != 1 {
			t.Fatalf("a removal touched %d slices without a merge", n)
		}
		if n > 5*(1+before-len(p.slices)) {
			t.Fatalf("one removal touched %d slices", n)
		}
		check(t, p)
	}
	if len(p.slices) != 1 || merges != 19 {
		t.Errorf("%d slices left after %d merges", len(p.slices), merges)
	}
	if limit := 20*size + 5*19; writes > limit {
		t.Errorf("%d writes for %d removals", writes, 20*size)
	}
}

func TestAPodAddedAndRemovedAtAnyLimitMergesNothing(t *testing.T) {
	for start := range 400 {
		p := filled(100, start)
		slicesBefore := len(p.slices)
		for range 3 {
			touch(p, nil, []address{addr(1000)})
			grown := len(p.slices)
			touch(p, []address{addr(1000)}, nil)
			if len(p.slices) != grown {
				t.Fatalf("at %d addresses one pod makes %d slices %d and %d again", start, slicesBefore, grown, len(p.slices))
			}
		}
	}
}

func TestAdoptedAddressesKeepTheirPlaces(t *testing.T) {
	p := filled(4, 11)
	want := make([][]address, len(p.slices))
	for i := range p.slices {
		want[i] = slices.Clone(p.slices[i])
	}
	q := newPlacement(4)
	q.adopt(want)
	for i := 10; i >= 1; i-- { // without address 0
		q.update(nil, []address{addr(i)}, func(int32) {})
	}
	q.update(nil, []address{addr(50)}, func(int32) {}) // a new one
	q.endAdoption()
	check(t, q)
	for i := 1; i <= 10; i++ {
		if q.members[addr(i)].slice != p.members[addr(i)].slice {
			t.Errorf("address %d moved", i)
		}
	}
	if _, ok := q.members[addr(0)]; ok {
		t.Error("the address that is gone stayed")
	}
	if q.members[addr(50)].slice != 0 {
		t.Error("the new address did not take the free place")
	}
}

func TestAnExistingSliceAboveTheMaximumStaysAndGetsNoMore(t *testing.T) {
	before := filled(10, 10)
	p := newPlacement(4)
	p.adopt(before.slices)
	for i := range 10 {
		p.update(nil, []address{addr(i)}, func(int32) {})
	}
	p.endAdoption()
	if len(p.slices) != 1 || len(p.slices[0]) != 10 {
		t.Fatalf("%d slices after the start, the first of %d", len(p.slices), len(p.slices[0]))
	}
	for i := range 6 {
		touch(p, []address{addr(i)}, []address{addr(100 + i)})
		if len(p.slices[0]) != 10-1-i {
			t.Fatalf("the large slice has %d addresses after %d changes", len(p.slices[0]), i+1)
		}
	}
	check(t, p)
}

// check verifies that each member is in exactly the slice that members contains, and that no slice exceeds
// the maximum.
func check(t *testing.T, p *placement) {
	t.Helper()
	seen := 0
	for i, s := range p.slices {
		if len(s) > p.max {
			t.Fatalf("slice %d holds %d", i, len(s))
		}
		for _, a := range s {
			seen++
			if m, ok := p.members[a]; !ok || int(m.slice) != i || m.refs < 1 {
				t.Fatalf("%v in slice %d is %v", a, i, m)
			}
		}
	}
	if seen != len(p.members) {
		t.Fatalf("%d places, %d members", seen, len(p.members))
	}
}
