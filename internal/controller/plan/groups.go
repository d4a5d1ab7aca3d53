package plan

import (
	"maps"
	"slices"
	"time"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// Desired is what the groups' slices should be. A resolver implements it.
type Desired interface {
	// Slices is the number of slices that a group should have; 0 for a group that nothing uses.
	Slices(policy.GroupKey) int
	Slice(resolver.SliceKey) (v1alpha1.PolicyEndpointSliceSpec, bool)
	// Forget reports that the slices of a group that nothing uses are about to be deleted.
	Forget(policy.GroupKey)
}

// Groups records which slices have to be compared with what they should be, and which groups are complete on
// the API server.
type Groups struct {
	// References are the groups that may not be deleted.
	References References

	window time.Duration
	states map[policy.GroupKey]*groupState
}

type groupState struct {
	// dirty are the indexes of the slices to compare.
	dirty map[int32]struct{}
	// seen is when the controller first saw a pod's new address that the dirty slices contain; zero if there
	// is none.
	seen time.Time
	// taken is when slices of the group were last taken to be written.
	taken   time.Time
	present bool
}

// NewGroups returns an empty record. Two batches of one group are at least window apart: the first change
// goes out at once, and the changes during the window go out together at its end.
func NewGroups(window time.Duration) *Groups {
	return &Groups{References: newReferences(), window: window, states: map[policy.GroupKey]*groupState{}}
}

func (g *Groups) state(key policy.GroupKey) *groupState {
	s, ok := g.states[key]
	if !ok {
		s = &groupState{dirty: map[int32]struct{}{}}
		g.states[key] = s
	}
	return s
}

// Touch records that a slice may differ from what it should be, and returns how long the batch that writes it
// has to wait. seen is when the controller saw the pod's new address that the slice is to contain, or zero.
func (g *Groups) Touch(key resolver.SliceKey, seen, now time.Time) time.Duration {
	s := g.state(key.Group)
	if s.seen.IsZero() {
		s.seen = seen
	}
	s.dirty[key.Index] = struct{}{}
	return s.taken.Add(g.window).Sub(now)
}

// Gone records that a slice was deleted, or replaced by one of another group: its group is incomplete until
// it is written again.
func (g *Groups) Gone(key resolver.SliceKey, now time.Time) time.Duration {
	g.state(key.Group).present = false
	return g.Touch(key, time.Time{}, now)
}

// Present reports whether all slices of a group were written and none of them was seen deleted since.
func (g *Groups) Present(key policy.GroupKey) bool {
	s, ok := g.states[key]
	return ok && s.present
}

// Take takes a group's dirty slices to be written. A group that nothing uses any more yields none while a
// PolicyEndpoint refers to it: its slices are taken when the last reference ends.
func (g *Groups) Take(key policy.GroupKey, desired Desired, now time.Time) Batch {
	s := g.state(key)
	b := Batch{Group: key, Count: int32(desired.Slices(key)), specs: map[int32]v1alpha1.PolicyEndpointSliceSpec{}}
	if b.Count == 0 {
		if g.References.Has(key) {
			return b
		}
		s.present = false // a PolicyEndpoint that comes to refer to it waits until it is written anew
		desired.Forget(key)
	}
	for i := range s.dirty {
		if spec, ok := desired.Slice(resolver.SliceKey{Group: key, Index: i}); ok {
			b.specs[i] = spec
		} else {
			b.gone = append(b.gone, i)
		}
	}
	slices.Sort(b.gone)
	b.seen, s.seen = s.seen, time.Time{}
	if len(s.dirty) > 0 {
		s.taken = now
	}
	clear(s.dirty)
	return b
}

// Written ends a batch that was written. It returns when the controller saw the first of the new addresses in
// it, or zero.
func (g *Groups) Written(b *Batch) (seen time.Time) {
	s := g.state(b.Group)
	s.present = b.Count > 0
	g.drop(b.Group, b.Count)
	return b.seen
}

// Failed returns the slices of a batch that could not be written.
func (g *Groups) Failed(b *Batch) {
	s := g.state(b.Group)
	for i := range b.specs {
		s.dirty[i] = struct{}{}
	}
	for _, i := range b.gone {
		s.dirty[i] = struct{}{}
	}
	if !b.seen.IsZero() {
		s.seen = b.seen
	}
}

// drop forgets a group that should have no slice and of which none is left to compare.
func (g *Groups) drop(key policy.GroupKey, count int32) {
	if count == 0 && len(g.states[key].dirty) == 0 {
		delete(g.states, key)
	}
}

// Batch are the slices of one group that are written together.
type Batch struct {
	Group policy.GroupKey
	// Count is the number of slices that the group should have.
	Count int32

	specs map[int32]v1alpha1.PolicyEndpointSliceSpec // that should be there
	gone  []int32                                    // that should not
	seen  time.Time
}

// SliceWrite is one write of a batch: of a slice's content, or, where Spec is nil, its deletion.
type SliceWrite struct {
	Index  int32
	Spec   *v1alpha1.PolicyEndpointSliceSpec
	Reason Reason
}

// DependsOnCount reports whether the order of the batch's writes depends on the number of slices that the
// group's first slice counts now.
func (b *Batch) DependsOnCount() bool { return len(b.gone) > 0 || len(b.specs) > 1 }

// Writes returns the batch's writes in the order of the package's promises. counted is the number of slices
// that the group's first slice on the API server counts, 0 if it is not there.
//
// Where slices were merged, an address moves to a slice with a lower index; so writing by ascending index
// adds it before it is removed.
func (b *Batch) Writes(counted int32) []SliceWrite {
	var fresh, rest, last []SliceWrite
	for _, i := range slices.Sorted(maps.Keys(b.specs)) {
		spec := b.specs[i]
		switch {
		case i > 0 && i >= counted:
			fresh = append(fresh, SliceWrite{i, &spec, BeforeItIsCounted})
		case i == 0 && counted > b.Count:
			// It goes on counting the slices to delete until the others have the addresses of these.
			before, after := spec, spec
			before.Groups = slices.Clone(spec.Groups)
			before.Groups[0].Slices = resolver.SliceNames(b.Group.Name, int(counted))
			rest = append(rest, SliceWrite{i, &before, CountsOn})
			last = append(last, SliceWrite{i, &after, CountsFewer})
		default:
			rest = append(rest, SliceWrite{i, &spec, AddressesChanged})
		}
	}
	for _, i := range b.gone {
		last = append(last, SliceWrite{i, nil, NotCounted})
	}
	return slices.Concat(fresh, rest, last)
}
