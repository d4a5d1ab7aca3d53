package plan

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

var web = policy.GroupKey{Namespace: "shop", Name: "g-web"}

// desired is what one group should be: the addresses of each slice.
type desired struct {
	slices    []string
	forgotten bool
}

func (d *desired) Slices(policy.GroupKey) int { return len(d.slices) }

func (d *desired) Slice(key resolver.SliceKey) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	if int(key.Index) >= len(d.slices) {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	spec := v1alpha1.PolicyEndpointSliceSpec{Groups: []v1alpha1.GroupPart{{Name: key.Group.Name}}}
	for _, a := range strings.Fields(d.slices[key.Index]) {
		spec.Addresses = append(spec.Addresses, v1alpha1.CIDR(a))
	}
	if key.Index == 0 {
		spec.Groups[0].Slices = resolver.SliceNames(key.Group.Name, len(d.slices))
	}
	return spec, true
}

func (d *desired) Forget(policy.GroupKey) { d.forgotten = true }

func TestOrderOfASlicesWrites(t *testing.T) {
	for _, c := range []struct {
		name    string
		counted int32  // by the first slice that is there
		slices  string // that should be there, by |
		dirty   []int32
		want    []string
	}{
		{"a new group", 0, "a", []int32{0}, []string{"write 0 [a] counts 1: slice differs"}},
		{"a new group of three slices: the first one last", 0, "a|b|c", []int32{0, 1, 2}, []string{
			"write 1 [b]: new slice: written before the first slice counts it",
			"write 2 [c]: new slice: written before the first slice counts it",
			"write 0 [a] counts 3: slice differs"}},
		{"an address is added", 2, "a|b c", []int32{1}, []string{"write 1 [b c]: slice differs"}},
		{"a slice is added to two", 2, "a|b|c", []int32{0, 2}, []string{
			"write 2 [c]: new slice: written before the first slice counts it",
			"write 0 [a] counts 3: slice differs"}},
		{"the last slice is merged into the second", 3, "a|b c", []int32{0, 1, 2}, []string{
			"write 0 [a] counts 3: first slice: still counts slices that are about to be deleted",
			"write 1 [b c]: slice differs",
			"write 0 [a] counts 2: first slice: no longer counts slices that are deleted next",
			"delete 2: slice is no longer counted"}},
		{"the second slice is merged into the first, the last takes its place", 3, "a b|c", []int32{0, 1, 2}, []string{
			"write 0 [a b] counts 3: first slice: still counts slices that are about to be deleted",
			"write 1 [c]: slice differs",
			"write 0 [a b] counts 2: first slice: no longer counts slices that are deleted next",
			"delete 2: slice is no longer counted"}},
		{"a group that nothing uses", 2, "", []int32{0, 1}, []string{"delete 0: slice is no longer counted", "delete 1: slice is no longer counted"}},
		{"another client deleted the first slice", 0, "a|b", []int32{0}, []string{"write 0 [a] counts 2: slice differs"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &desired{}
			if c.slices != "" {
				d.slices = strings.Split(c.slices, "|")
			}
			g := NewGroups(0)
			for _, i := range c.dirty {
				g.Touch(resolver.SliceKey{Group: web, Index: i}, time.Time{}, time.Time{})
			}
			b := g.Take(web, d, time.Time{})
			var got []string
			for _, w := range b.Writes(c.counted) {
				got = append(got, describe(w))
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

func describe(w SliceWrite) string {
	if w.Spec == nil {
		return fmt.Sprintf("delete %d: %s", w.Index, w.Reason)
	}
	out := fmt.Sprintf("write %d %s", w.Index, w.Spec.Addresses)
	if w.Index == 0 {
		out += fmt.Sprintf(" counts %d", len(w.Spec.Groups[0].Slices))
	}
	return out + ": " + string(w.Reason)
}

func TestGroupsThatAreReferredToStay(t *testing.T) {
	endpoint := nameOf("shop", "db")
	d := &desired{slices: []string{"a"}}
	g := NewGroups(0)
	g.References.Add(endpoint, []policy.GroupKey{web})
	g.Touch(resolver.SliceKey{Group: web}, time.Time{}, time.Time{})
	if g.Present(web) {
		t.Error("present before it was written")
	}
	b := g.Take(web, d, time.Time{})
	g.Written(&b)
	if !g.Present(web) {
		t.Error("not present after it was written")
	}

	d.slices = nil // the policy was edited, its PolicyEndpoint not yet written
	g.Touch(resolver.SliceKey{Group: web}, time.Time{}, time.Time{})
	b = g.Take(web, d, time.Time{})
	if writes := b.Writes(1); len(writes) > 0 || d.forgotten {
		t.Fatalf("a group that a PolicyEndpoint refers to is deleted: %v", writes)
	}
	g.Written(&b)
	if unused := g.References.Set(endpoint, nil); !slices.Equal(unused, []policy.GroupKey{web}) {
		t.Fatalf("unused groups %v", unused)
	}
	b = g.Take(web, d, time.Time{})
	if got := describe(b.Writes(1)[0]); got != "delete 0: slice is no longer counted" || !d.forgotten {
		t.Errorf("%s, forgotten %t", got, d.forgotten)
	}
	g.Written(&b)
	if len(g.states) > 0 {
		t.Errorf("%d groups are remembered", len(g.states))
	}
}

func TestASliceThatIsDeletedMakesItsGroupIncomplete(t *testing.T) {
	d := &desired{slices: []string{"a", "b"}}
	g := NewGroups(0)
	for i := range int32(2) {
		g.Touch(resolver.SliceKey{Group: web, Index: i}, time.Time{}, time.Time{})
	}
	b := g.Take(web, d, time.Time{})
	g.Written(&b)
	g.Gone(resolver.SliceKey{Group: web, Index: 1}, time.Time{})
	if g.Present(web) {
		t.Error("present without one of its slices")
	}
	b = g.Take(web, d, time.Time{})
	if got := describe(b.Writes(2)[0]); got != "write 1 [b]: slice differs" {
		t.Error(got)
	}
	g.Failed(&b)
	if b = g.Take(web, d, time.Time{}); len(b.Writes(2)) != 1 {
		t.Error("a write that failed is not repeated")
	}
	g.Written(&b)
	if !g.Present(web) {
		t.Error("not present after it was written again")
	}
}

func TestBatchesOfAGroupAreAWindowApart(t *testing.T) {
	const window = 100 * time.Millisecond
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	d := &desired{slices: []string{"a"}}
	g := NewGroups(window)
	first := resolver.SliceKey{Group: web}
	if wait := g.Touch(first, start, start); wait > 0 {
		t.Errorf("the first change waits %s", wait)
	}
	b := g.Take(web, d, start)
	if seen := g.Written(&b); !seen.Equal(start) {
		t.Errorf("seen %s", seen)
	}
	if wait := g.Touch(first, time.Time{}, start.Add(30*time.Millisecond)); wait != 70*time.Millisecond {
		t.Errorf("the second change waits %s", wait)
	}
	later := start.Add(50 * time.Millisecond)
	if wait := g.Touch(first, later, later); wait != 50*time.Millisecond {
		t.Errorf("the third change waits %s", wait)
	}
	b = g.Take(web, d, start.Add(window))
	if len(b.Writes(1)) != 1 {
		t.Errorf("two changes come to the writes %v", b.Writes(1))
	}
	g.Failed(&b)
	b = g.Take(web, d, start.Add(2*window))
	if seen := g.Written(&b); !seen.Equal(later) {
		t.Errorf("a failure loses when the address was seen: %s", seen)
	}
}
