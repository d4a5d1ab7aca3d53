package plan

import (
	"cmp"
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// Batch are slices whose writes depend on each other, or a single slice.
type Batch struct {
	shared string
	slices map[types.NamespacedName]batchSlice
	later  map[types.NamespacedName]bool // see SliceWrite.Later
}

type batchSlice struct {
	dirtySlice
	want *v1alpha1.PolicyEndpointSliceSpec // nil: it should not be there
}

// Names are the names of the batch's slices, sorted.
func (b *Batch) Names() []types.NamespacedName {
	return slices.SortedFunc(maps.Keys(b.slices), compareNames)
}

// SliceWrite is one write of a batch: of a slice's content, or, where Spec is nil, its deletion.
type SliceWrite struct {
	Name   types.NamespacedName
	Spec   *v1alpha1.PolicyEndpointSliceSpec
	Reason Reason
	// After are the indexes of the writes that must have succeeded before this one.
	After []int
	// AfterTry are the indexes of the writes that must have succeeded or failed before this one. They are in other
	// namespaces, where tenants may have a say in what the API server accepts.
	AfterTry []int
	// Last is false if the batch writes the slice once more afterwards.
	Last bool
	// Later is true if the write is for a later batch: the slice only loses addresses to slices in kidoban's own
	// namespace, which this batch writes. A reader that watches the two namespaces is to see the gain first.
	Later bool

	seen bool // it has the address of a new pod
	rank int
}

// Ranks of writes. A write may only depend on those of lower ranks, and on some of its own.
const (
	rankGains = iota
	rankGainsAndLists
	rankLists
	rankLoses
	rankGone
)

// Writes returns the batch's writes. have are the slices on the API server. Writes that depend on no other come
// first, and among those of one rank the ones with addresses of new pods.
//
// Addresses move in two cases: those of a slice that is deleted, after a merge, and those that enter their first
// shared group, from a slice of another namespace to one of kidoban's own. So moves have no cycles.
func (b *Batch) Writes(have map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec) []SliceWrite {
	names := b.Names()
	found := make([]comparison, len(names))
	var m moves
	for i, name := range names {
		want := b.slices[name].want
		found[i] = compare(name.Namespace, have[name], want)
		if have[name] != nil && (name.Namespace != b.shared || want == nil) {
			eachMembership(name.Namespace, want, have[name], func(l membership) { m.lose(i, l) })
		}
	}
	for i, name := range names {
		if want := b.slices[name].want; want != nil && len(m.from) > 0 {
			eachMembership(name.Namespace, have[name], want, func(g membership) { m.gain(i, g) })
		}
	}
	changeOtherwise := m.changeOtherwise()
	writes := make([]SliceWrite, len(names))
	for i, name := range names {
		s := b.slices[name]
		movesAway := slices.ContainsFunc(m.to[i], func(to int) bool { return names[to].Namespace == b.shared }) && name.Namespace != b.shared
		w := SliceWrite{Name: name, Spec: s.want, Last: true, seen: !s.seen.IsZero()}
		w.Reason, w.rank = found[i].kind(s.want == nil, movesAway, m.into[i])
		if w.Later = movesAway && !changeOtherwise[i]; w.Later {
			b.later[name] = true
		}
		writes[i] = w
	}
	after, lists := b.dependencies(writes, found, &m)
	for i, name := range names {
		if writes[i].rank > rankGainsAndLists || have[name] == nil {
			continue
		}
		stay, listers := found[i].staying(i, lists)
		if len(stay) == 0 || len(writes[i].Spec.Groups)+len(stay) > v1alpha1.MaxGroupsPerSlice {
			continue
		}
		listers[i] = struct{}{}
		writes, after = append(writes, SliceWrite{Name: name, Spec: writes[i].Spec, Reason: PartsDropped, Last: true, rank: rankLoses}), append(after, listers)
		writes[i].Spec, writes[i].Reason, writes[i].Last = withParts(name.Namespace, writes[i].Spec, have[name], stay), PartsStay, false
	}
	return inOrder(writes, after)
}

// staying returns the groups that slice i loses a part of, although their lists in other slices have to change
// before that, and those slices.
func (c *comparison) staying(i int, lists map[policy.GroupKey][]int) (stay map[policy.GroupKey]bool, listers map[int]struct{}) {
	stay, listers = map[policy.GroupKey]bool{}, map[int]struct{}{}
	for _, key := range c.drops {
		for _, on := range lists[key] {
			if on != i {
				stay[key] = true
				listers[on] = struct{}{}
			}
		}
	}
	return stay, listers
}

// withParts is a version of a slice with the parts of some groups of another version, without their addresses.
func withParts(namespace string, spec, other *v1alpha1.PolicyEndpointSliceSpec, groups map[policy.GroupKey]bool) *v1alpha1.PolicyEndpointSliceSpec {
	out := *spec
	out.Groups = slices.Clone(spec.Groups)
	for i := range other.Groups {
		if groups[resolver.GroupOf(namespace, &other.Groups[i])] {
			out.Groups = append(out.Groups, other.Groups[i])
		}
	}
	return &out
}

// kind says what a write does, and its rank.
func (c *comparison) kind(gone, movesAway, movesHere bool) (Reason, int) {
	gains := len(c.parts) > 0 || movesHere
	switch {
	case gone:
		return NotWanted, rankGone
	case movesAway && len(c.lists) > 0, len(c.lists) > 0 && !gains:
		return ListsChanged, rankLists
	case movesAway:
		return AddressesMoved, rankLoses
	case len(c.lists) > 0:
		return PartsAndListsChanged, rankGainsAndLists
	case len(c.drops) > 0 && !gains:
		return PartsDropped, rankLoses
	}
	return AddressesChanged, rankGains
}

// dependencies returns the writes that each write comes after, and those with changes of groups' lists.
func (b *Batch) dependencies(writes []SliceWrite, found []comparison, m *moves) (after []map[int]struct{}, lists map[policy.GroupKey][]int) {
	after = make([]map[int]struct{}, len(writes))
	depend := func(i, on int) {
		if writes[on].rank >= writes[i].rank {
			return
		}
		if after[i] == nil {
			after[i] = map[int]struct{}{}
		}
		after[i][on] = struct{}{}
	}
	lists = map[policy.GroupKey][]int{}
	gains := map[policy.GroupKey][]int{}
	for i := range found {
		for _, key := range found[i].parts {
			gains[key] = append(gains[key], i)
		}
		for _, key := range found[i].lists {
			lists[key] = append(lists[key], i)
		}
	}
	named := make([]map[int]struct{}, len(writes)) // slices with lists that get parts of groups in them
	for key, listers := range lists {
		for _, i := range listers {
			for _, on := range gains[key] {
				depend(i, on)
				if i != on && writes[i].rank == writes[on].rank {
					if named[i] == nil {
						named[i] = map[int]struct{}{}
					}
					named[i][on] = struct{}{}
				}
			}
		}
	}
	dependWithoutCycles(after, named)
	for i := range found {
		for _, key := range found[i].drops {
			for _, on := range lists[key] {
				depend(i, on)
			}
		}
		for _, on := range m.to[i] {
			depend(i, on)
		}
		for key := range m.groups[i] {
			for _, on := range lists[key] {
				depend(i, on)
			}
		}
	}
	return after, lists
}

// dependWithoutCycles makes writes come after others of their rank, except where that would be a cycle.
func dependWithoutCycles(after, on []map[int]struct{}) {
	const unseen, open, closed = 0, 1, 2
	state := make([]int, len(on))
	var visit func(i int)
	visit = func(i int) {
		state[i] = open
		for _, other := range slices.Sorted(maps.Keys(on[i])) {
			if state[other] == unseen {
				visit(other)
			}
			if state[other] == open {
				continue // it comes after this one
			}
			if after[i] == nil {
				after[i] = map[int]struct{}{}
			}
			after[i][other] = struct{}{}
		}
		state[i] = closed
	}
	for i := range on {
		if state[i] == unseen {
			visit(i)
		}
	}
}

// inOrder sorts writes by rank, and sets the indexes of those that each comes after.
func inOrder(writes []SliceWrite, after []map[int]struct{}) []SliceWrite {
	depth := make([]int, len(writes)) // inside the rank
	var depthOf func(i int) int
	depthOf = func(i int) int {
		if depth[i] == 0 {
			depth[i] = 1
			for on := range after[i] {
				if writes[on].rank == writes[i].rank {
					depth[i] = max(depth[i], 1+depthOf(on))
				}
			}
		}
		return depth[i]
	}
	order := make([]int, len(writes))
	for i := range order {
		order[i] = i
		depthOf(i)
	}
	slices.SortStableFunc(order, func(x, y int) int {
		a, b := &writes[x], &writes[y]
		if d := cmp.Or(a.rank-b.rank, depth[x]-depth[y]); d != 0 || a.seen == b.seen {
			return d
		}
		if a.seen {
			return -1
		}
		return 1
	})
	at := make([]int, len(writes))
	for i, x := range order {
		at[x] = i
	}
	out := make([]SliceWrite, len(writes))
	for i, x := range order {
		w := writes[x]
		for on := range after[x] {
			if writes[on].Name.Namespace == w.Name.Namespace || writes[on].rank <= rankGainsAndLists {
				w.After = append(w.After, at[on])
			} else {
				w.AfterTry = append(w.AfterTry, at[on])
			}
		}
		slices.Sort(w.After)
		slices.Sort(w.AfterTry)
		out[i] = w
	}
	return out
}
