package plan

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// Desired is what the slices should be. A resolver implements it.
type Desired interface {
	// Slices are the names of the slices that a group should have; none for a group that does not exist.
	Slices(policy.GroupKey) []types.NamespacedName
	Slice(types.NamespacedName) (v1alpha1.PolicyEndpointSliceSpec, bool)
}

// Slices records which slices have to be compared with what they should be, and which groups are complete on
// the API server.
type Slices struct {
	// References are the groups that have to stay.
	References References

	shared  string // kidoban's own namespace
	window  time.Duration
	states  map[types.NamespacedName]*sliceState
	present map[policy.GroupKey]struct{} // groups that were complete when Present was asked
	// recent are slices that were taken, for those of the last window.
	recent []taken
}

type taken struct {
	name types.NamespacedName
	at   time.Time
}

// sliceState is a slice that is dirty, or was taken during the last window.
type sliceState struct {
	dirty *dirtySlice // nil if it is not dirty
	// links are the slices of the set that the writes of this dirty slice depend on; see resolver.SliceChange.
	links   map[types.NamespacedName]struct{}
	writing *batchSlice // nil if it is not being written
	taken   time.Time
	// notBefore is when agents have seen where the slice's addresses went. A change of the slice ends the wait.
	notBefore time.Time
}

// moveTime is how long an address that moves to kidoban's own namespace stays in its old slice as well. An agent
// watches the two namespaces apart, and may see the later write first.
const moveTime = time.Second

// dirtySlice is a slice to compare.
type dirtySlice struct {
	structure bool // see resolver.SliceChange
	// seen is when the controller first saw a pod's new address that the slice is to contain; zero if there is
	// none.
	seen time.Time
}

// NewSlices returns an empty record; shared is kidoban's own namespace. Two writes of one slice are at least window
// apart: the first change goes out at once, and the changes during the window go out together at its end. Slices
// whose writes depend on each other go out together, at the earliest time of any of them; any other slice goes out
// for itself.
func NewSlices(shared string, window time.Duration) *Slices {
	return &Slices{
		References: newReferences(), shared: shared, window: window,
		states: map[types.NamespacedName]*sliceState{}, present: map[policy.GroupKey]struct{}{},
	}
}

func (s *Slices) state(name types.NamespacedName) *sliceState {
	n, ok := s.states[name]
	if !ok {
		n = &sliceState{}
		s.states[name] = n
	}
	return n
}

// Touch records that slices may differ from what they should be. seen is when the controller saw the pod's new
// address that they are to contain, or zero.
func (s *Slices) Touch(changes []resolver.SliceChange, seen time.Time) {
	first := map[int]types.NamespacedName{} // of each set
	for _, c := range changes {
		s.state(c.Name).notBefore = time.Time{}
		s.touch(c.Name, dirtySlice{c.Structure || c.Set != 0, seen})
		if c.Set == 0 {
			continue
		}
		if other, ok := first[c.Set]; ok {
			s.link(c.Name, other)
		} else {
			first[c.Set] = c.Name
		}
	}
}

func (s *Slices) touch(name types.NamespacedName, d dirtySlice) {
	n := s.state(name)
	if n.dirty == nil {
		n.dirty = &dirtySlice{}
	}
	n.dirty.structure = n.dirty.structure || d.structure
	if n.dirty.seen.IsZero() || !d.seen.IsZero() && d.seen.Before(n.dirty.seen) {
		n.dirty.seen = d.seen
	}
}

func (s *Slices) link(a, b types.NamespacedName) {
	for _, l := range [2][2]types.NamespacedName{{a, b}, {b, a}} {
		n := s.state(l[0])
		if n.links == nil {
			n.links = map[types.NamespacedName]struct{}{}
		}
		n.links[l[1]] = struct{}{}
	}
}

// Differs records that a slice on the API server is not what it should be. It reports false if the slice is to be
// compared anyway.
func (s *Slices) Differs(name types.NamespacedName) bool {
	n := s.state(name)
	if n.dirty != nil {
		return false
	}
	s.touch(name, dirtySlice{structure: n.writing == nil})
	return true
}

// Wait is how long the write of a slice has to wait.
func (s *Slices) Wait(name types.NamespacedName, now time.Time) time.Duration {
	n, ok := s.states[name]
	if !ok {
		return 0
	}
	wait := max(0, n.notBefore.Sub(now))
	if !n.taken.IsZero() {
		wait = max(wait, n.taken.Add(s.window).Sub(now))
	}
	return wait
}

// Gone records that a slice was deleted or replaced: the groups that it had are incomplete until it is written
// again.
func (s *Slices) Gone(name types.NamespacedName, had *v1alpha1.PolicyEndpointSliceSpec) {
	for i := range had.Groups {
		delete(s.present, resolver.GroupOf(name.Namespace, &had.Groups[i]))
	}
	s.touch(name, dirtySlice{structure: true})
}

// Forgotten records that a group leaves its slices. A PolicyEndpoint that comes to refer to it waits until it
// is written anew.
func (s *Slices) Forgotten(key policy.GroupKey) { delete(s.present, key) }

// Present reports whether a group was complete on the API server once, and none of its slices was seen deleted
// since.
func (s *Slices) Present(key policy.GroupKey, desired Desired) bool {
	if _, ok := s.present[key]; ok {
		return true
	}
	names := desired.Slices(key)
	missing := slices.ContainsFunc(names, func(name types.NamespacedName) bool {
		n := s.states[name]
		return n != nil && (n.writing != nil && n.writing.structure || n.dirty != nil && n.dirty.structure)
	})
	if len(names) == 0 || missing {
		return false
	}
	s.present[key] = struct{}{}
	return true
}

// Take takes a slice to be written, with those that its write depends on. It takes none while one of them is being
// written: busy is the one. If all of them were written during the last window, it takes none either, and wait is the
// time until it is over.
func (s *Slices) Take(name types.NamespacedName, desired Desired, now time.Time) (b *Batch, wait time.Duration, busy *types.NamespacedName) {
	s.forgetOld(now)
	return s.take(name, desired, false, now)
}

// TakeNow takes a slice to be written, with those that its write depends on, without a wait for their windows. The batch
// is empty if the slice is what it should be, or if one of them is being written: busy is the one.
func (s *Slices) TakeNow(name types.NamespacedName, desired Desired, now time.Time) (b *Batch, busy *types.NamespacedName) {
	s.forgetOld(now)
	if n := s.states[name]; n != nil && n.writing != nil {
		return nil, &name
	}
	b, _, busy = s.take(name, desired, true, now)
	return b, busy
}

// TakeGroup takes those slices of a group whose structure changed, one set of them at a time, without a wait.
// The batch is empty if there is none to be taken; busy is one that is being written, the one with the group's list
// if it is.
func (s *Slices) TakeGroup(key policy.GroupKey, desired Desired, now time.Time) (b *Batch, busy *types.NamespacedName) {
	s.forgetOld(now)
	for _, name := range desired.Slices(key) {
		n := s.states[name]
		if n == nil {
			continue
		}
		var other *types.NamespacedName
		switch {
		case n.dirty != nil && n.dirty.structure:
			if b, _, other = s.take(name, desired, true, now); other == nil {
				return b, nil
			}
		case n.writing != nil && n.writing.structure:
			other = &name
		}
		if other != nil && (busy == nil || s.lists(*other, key)) {
			busy = other
		}
	}
	return nil, busy
}

// lists reports whether a slice that is being written is to have the list of a group's slices.
func (s *Slices) lists(name types.NamespacedName, key policy.GroupKey) bool {
	n := s.states[name]
	return n != nil && n.writing != nil && n.writing.want != nil && slices.ContainsFunc(n.writing.want.Groups, func(p v1alpha1.GroupPart) bool {
		return p.Name == key.Name && len(p.Slices) > 0 && resolver.GroupOf(name.Namespace, &p) == key
	})
}

func (s *Slices) take(name types.NamespacedName, desired Desired, atOnce bool, now time.Time) (b *Batch, wait time.Duration, busy *types.NamespacedName) {
	names := s.set(name)
	wait = -1
	for _, name := range names {
		if s.states[name].writing != nil {
			return nil, 0, &name
		}
		if w := s.Wait(name, now); wait < 0 || w < wait {
			wait = w
		}
	}
	if len(names) == 0 || wait > 0 && !atOnce {
		return nil, max(0, wait), nil
	}
	b = &Batch{shared: s.shared, slices: map[types.NamespacedName]batchSlice{}, later: map[types.NamespacedName]bool{}}
	for _, name := range names {
		n := s.states[name]
		x := batchSlice{dirtySlice: *n.dirty}
		if spec, ok := desired.Slice(name); ok {
			x.want = &spec
		}
		b.slices[name] = x
		*n = sliceState{writing: &x, taken: now}
		s.recent = append(s.recent, taken{name, now})
	}
	return b, 0, nil
}

// set returns a dirty slice and those that its write depends on; none if the slice is not dirty.
func (s *Slices) set(name types.NamespacedName) (names []types.NamespacedName) {
	if n := s.states[name]; n == nil || n.dirty == nil {
		return nil
	}
	names = []types.NamespacedName{name}
	found := map[types.NamespacedName]struct{}{name: {}}
	for i := 0; i < len(names); i++ {
		for other := range s.states[names[i]].links {
			if n := s.states[other]; n == nil || n.dirty == nil {
				continue
			}
			if _, ok := found[other]; !ok {
				found[other] = struct{}{}
				names = append(names, other)
			}
		}
	}
	return names
}

// forgetOld forgets the slices that were taken before the last window and are not dirty.
func (s *Slices) forgetOld(now time.Time) {
	for len(s.recent) > 0 && now.Sub(s.recent[0].at) >= s.window {
		t := s.recent[0]
		s.recent = s.recent[1:]
		if n := s.states[t.name]; n != nil && n.dirty == nil && n.writing == nil && n.taken.Equal(t.at) {
			delete(s.states, t.name)
		}
	}
}

// Written records that a slice of a batch is what it should be, so that it can be taken again. It returns when
// the controller saw the new address in it, or zero.
func (s *Slices) Written(b *Batch, name types.NamespacedName) (seen time.Time) {
	n := s.state(name)
	n.writing = nil
	if n.dirty == nil && s.window <= 0 {
		delete(s.states, name)
	}
	return b.slices[name].seen
}

// Done ends a batch and records the slices that were not written to be compared again. It returns them; Wait says when.
func (s *Slices) Done(b *Batch, written map[types.NamespacedName]bool, now time.Time) (again []types.NamespacedName) {
	for _, name := range b.Names() {
		if written[name] {
			continue
		}
		n := s.state(name)
		if n.writing = nil; n.dirty == nil && b.later[name] {
			n.notBefore = now.Add(moveTime)
		}
		s.touch(name, b.slices[name].dirtySlice)
		if again = append(again, name); len(again) > 1 {
			s.link(again[0], name)
		}
	}
	return again
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
