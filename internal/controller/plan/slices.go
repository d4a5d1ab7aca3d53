package plan

import (
	"slices"
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

	window     time.Duration
	namespaces map[string]*namespaceState
	present    map[policy.GroupKey]struct{} // groups that were complete when Present was asked
}

// namespaceState is the state of the slices of one namespace, by their names.
type namespaceState struct {
	dirty map[string]dirtySlice
	// writing are the slices of the current batch whose structure changed.
	writing map[string]struct{}
	// taken is when the slices were last taken to be written, for those of the last window.
	taken map[string]time.Time
}

// dirtySlice is a slice to compare.
type dirtySlice struct {
	structure bool // see resolver.SliceChange
	// seen is when the controller first saw a pod's new address that the slice is to contain; zero if there is
	// none.
	seen time.Time
}

// NewSlices returns an empty record. Two writes of one slice are at least window apart: the first change goes
// out at once, and the changes during the window go out together at its end. Slices whose structure changed
// go out together with all other such slices of their namespace, at the earliest time of any of them.
func NewSlices(window time.Duration) *Slices {
	return &Slices{References: newReferences(), window: window, namespaces: map[string]*namespaceState{}, present: map[policy.GroupKey]struct{}{}}
}

func (s *Slices) state(namespace string) *namespaceState {
	n, ok := s.namespaces[namespace]
	if !ok {
		n = &namespaceState{dirty: map[string]dirtySlice{}, writing: map[string]struct{}{}, taken: map[string]time.Time{}}
		s.namespaces[namespace] = n
	}
	return n
}

// Touch records that a slice may differ from what it should be, and returns how long the batch that writes it
// has to wait. seen is when the controller saw the pod's new address that the slice is to contain, or zero.
func (s *Slices) Touch(c resolver.SliceChange, seen, now time.Time) time.Duration {
	n := s.state(c.Name.Namespace)
	d := n.dirty[c.Name.Name]
	if d.seen.IsZero() {
		d.seen = seen
	}
	d.structure = d.structure || c.Structure
	n.dirty[c.Name.Name] = d
	return s.wait(n, c.Name.Name, now)
}

func (s *Slices) wait(n *namespaceState, name string, now time.Time) time.Duration {
	taken, ok := n.taken[name]
	if !ok {
		return 0
	}
	return taken.Add(s.window).Sub(now)
}

// Gone records that a slice was deleted or replaced: the groups that it had are incomplete until it is written
// again.
func (s *Slices) Gone(name types.NamespacedName, had *v1alpha1.PolicyEndpointSliceSpec, now time.Time) time.Duration {
	for i := range had.Groups {
		delete(s.present, policy.GroupKey{Namespace: name.Namespace, Name: had.Groups[i].Name})
	}
	return s.Touch(resolver.SliceChange{Name: name, Structure: true}, time.Time{}, now)
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
	n := s.namespaces[key.Namespace]
	missing := slices.ContainsFunc(names, func(name types.NamespacedName) bool {
		if n == nil {
			return false
		}
		_, writing := n.writing[name.Name]
		return writing || n.dirty[name.Name].structure
	})
	if len(names) == 0 || missing {
		return false
	}
	s.present[key] = struct{}{}
	return true
}

// Take takes a namespace's slices to be written: those whose window has ended, or, if all is true, also those
// whose structure changed. next is the time until the next ones can be taken; 0 if there are none.
func (s *Slices) Take(namespace string, desired Desired, all bool, now time.Time) (b Batch, next time.Duration) {
	b = Batch{Namespace: namespace, slices: map[string]batchSlice{}}
	n, ok := s.namespaces[namespace]
	if !ok {
		return b, 0
	}
	for name, d := range n.dirty {
		all = all || d.structure && s.wait(n, name, now) <= 0
	}
	for name, d := range n.dirty {
		if wait := s.wait(n, name, now); wait > 0 && (!all || !d.structure) {
			if next == 0 || wait < next {
				next = wait
			}
			continue
		}
		taken := batchSlice{dirtySlice: d}
		if spec, ok := desired.Slice(types.NamespacedName{Namespace: namespace, Name: name}); ok {
			taken.want = &spec
		}
		b.slices[name] = taken
		delete(n.dirty, name)
		if d.structure {
			n.writing[name] = struct{}{}
		}
	}
	for name, taken := range n.taken {
		if now.Sub(taken) >= s.window {
			delete(n.taken, name)
		}
	}
	for name := range b.slices {
		n.taken[name] = now
	}
	return b, next
}

// Done ends a batch of which some slices were written, and records the others to be compared again. It returns
// when the controller saw the new addresses in those that were written.
func (s *Slices) Done(b *Batch, written map[string]bool) (seen []time.Time) {
	n := s.state(b.Namespace)
	clear(n.writing)
	wanted := false
	for name, taken := range b.slices {
		wanted = wanted || taken.want != nil
		if written[name] {
			if !taken.seen.IsZero() {
				seen = append(seen, taken.seen)
			}
			continue
		}
		d := n.dirty[name]
		d.structure = d.structure || taken.structure
		if !taken.seen.IsZero() {
			d.seen = taken.seen
		}
		n.dirty[name] = d
	}
	if len(n.dirty) == 0 && !wanted {
		delete(s.namespaces, b.Namespace)
	}
	return seen
}
