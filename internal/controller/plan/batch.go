package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Batch are slices of one namespace that are written together. If the structure of one of them changed, all
// such slices of the namespace are in the batch.
type Batch struct {
	Namespace string
	slices    map[string]batchSlice
}

type batchSlice struct {
	dirtySlice
	want *v1alpha1.PolicyEndpointSliceSpec // nil: it should not be there
}

// Names are the names of the batch's slices, sorted.
func (b *Batch) Names() []string { return slices.Sorted(maps.Keys(b.slices)) }

// SliceWrite is one write of a batch: of a slice's content, or, where Spec is nil, its deletion.
type SliceWrite struct {
	Name   string
	Spec   *v1alpha1.PolicyEndpointSliceSpec
	Reason Reason
	// Last is false if the batch writes the slice once more afterwards.
	Last bool
}

// Phases returns the batch's writes in the order of the package's promises. The writes of one phase may go out
// in any order; if one fails, those of later phases must not go out. have are the slices on the API server.
//
// Only a merge moves addresses: those of the slice that is deleted are then in another slice. A reader of
// the list of a group must not miss these addresses: no list drops the deleted slice before the other one is
// written.
func (b *Batch) Phases(have map[string]*v1alpha1.PolicyEndpointSliceSpec) [][]SliceWrite {
	var first, both, lists, rest, gone []SliceWrite
	moving := b.moving(have)
	var targets []string // slices of both that get addresses of deleted slices
	for _, name := range b.Names() {
		c := compare(have[name], b.slices[name].want)
		w := SliceWrite{name, b.slices[name].want, AddressesChanged, true}
		moved := slices.ContainsFunc(c.changed, func(a v1alpha1.CIDR) bool { return moving[a] })
		switch {
		case w.Spec == nil:
			w.Reason = NotWanted
			gone = append(gone, w)
		case c.lists && (c.parts || moved):
			w.Reason = PartsAndListsChanged
			both = append(both, w)
			if moved {
				targets = append(targets, name)
			}
		case c.lists:
			w.Reason = ListsChanged
			lists = append(lists, w)
		case c.drops && !c.parts && !moved:
			w.Reason = PartsDropped
			rest = append(rest, w)
		default:
			first = append(first, w)
		}
	}
	for i, w := range both {
		others := slices.ContainsFunc(targets, func(name string) bool { return name != w.Name })
		if others && have[w.Name] != nil {
			lists = append(lists, w)
			both[i] = SliceWrite{w.Name, withListsOf(w.Spec, have[w.Name]), ListsStay, false}
		}
	}
	return slices.DeleteFunc([][]SliceWrite{first, both, lists, rest, gone}, func(phase []SliceWrite) bool { return len(phase) == 0 })
}

// moving are the addresses of the slices that are deleted.
func (b *Batch) moving(have map[string]*v1alpha1.PolicyEndpointSliceSpec) map[v1alpha1.CIDR]bool {
	out := map[v1alpha1.CIDR]bool{}
	for name, s := range b.slices {
		if s.want == nil && have[name] != nil {
			for _, a := range have[name].Addresses {
				out[a] = true
			}
		}
	}
	return out
}

// comparison is the difference of two versions of a slice.
type comparison struct {
	parts, drops bool            // it gets or loses a part of a group
	lists        bool            // a list changes
	changed      []v1alpha1.CIDR // addresses that it gets, or that are in other groups
}

func compare(have, want *v1alpha1.PolicyEndpointSliceSpec) (c comparison) {
	if want == nil {
		return c
	}
	if have == nil {
		have = &v1alpha1.PolicyEndpointSliceSpec{}
	}
	before := map[string][]string{}
	for i := range have.Groups {
		before[have.Groups[i].Name] = have.Groups[i].Slices
	}
	for i := range want.Groups {
		g := &want.Groups[i]
		list, had := before[g.Name]
		c.parts = c.parts || !had
		c.lists = c.lists || !slices.Equal(list, g.Slices)
		delete(before, g.Name)
	}
	for _, list := range before {
		c.drops = true
		c.lists = c.lists || len(list) > 0
	}
	was := groupsByAddress(have)
	for a, groups := range groupsByAddress(want) {
		if was[a] != groups {
			c.changed = append(c.changed, a)
		}
	}
	return c
}

// groupsByAddress returns the names of the groups of each address. Any client may have written the slice, so
// nothing of its content is certain.
func groupsByAddress(spec *v1alpha1.PolicyEndpointSliceSpec) map[v1alpha1.CIDR]string {
	out := make(map[v1alpha1.CIDR]string, len(spec.Addresses))
	rest := spec.Addresses
	for i := range spec.Classes {
		c := &spec.Classes[i]
		var names []string
		for _, g := range c.Groups {
			if g >= 0 && int(g) < len(spec.Groups) {
				names = append(names, spec.Groups[g].Name)
			}
		}
		n := min(max(0, int(c.Count)), len(rest))
		groups := strings.Join(names, " ")
		for _, a := range rest[:n] {
			out[a] = groups
		}
		rest = rest[n:]
	}
	return out
}

// withListsOf is a version of a slice with the lists of another version.
func withListsOf(spec, lists *v1alpha1.PolicyEndpointSliceSpec) *v1alpha1.PolicyEndpointSliceSpec {
	out := *spec
	out.Groups = slices.Clone(spec.Groups)
	listed := map[string]v1alpha1.GroupPart{}
	for _, g := range lists.Groups {
		if len(g.Slices) > 0 {
			listed[g.Name] = g
		}
	}
	for i := range out.Groups {
		g := &out.Groups[i]
		g.Slices, g.Selector = listed[g.Name].Slices, listed[g.Name].Selector
		delete(listed, g.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		out.Groups = append(out.Groups, listed[name])
	}
	return &out
}
