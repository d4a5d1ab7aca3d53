package plan

import (
	"cmp"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// comparison is the difference of two versions of a slice.
type comparison struct {
	parts, drops []policy.GroupKey // groups that it gets or loses a part of
	lists        []policy.GroupKey // groups whose list changes
}

// membership is an address in a group.
type membership struct {
	address v1alpha1.CIDR
	group   policy.GroupKey
}

var nothing = &v1alpha1.PolicyEndpointSliceSpec{}

// compare compares two versions of a slice, nil if there is none.
func compare(namespace string, have, want *v1alpha1.PolicyEndpointSliceSpec) (c comparison) {
	have, want = cmp.Or(have, nothing), cmp.Or(want, nothing)
	before := make(map[policy.GroupKey]*v1alpha1.GroupPart, len(have.Groups))
	for i := range have.Groups {
		before[resolver.GroupOf(namespace, &have.Groups[i])] = &have.Groups[i]
	}
	for i := range want.Groups {
		g := &want.Groups[i]
		key := resolver.GroupOf(namespace, g)
		old, had := before[key]
		if !had {
			c.parts = append(c.parts, key)
			old = &v1alpha1.GroupPart{}
		}
		if !slices.Equal(old.Slices, g.Slices) || !slices.Equal(old.SharedSlices, g.SharedSlices) {
			c.lists = append(c.lists, key)
		}
		delete(before, key)
	}
	for key, old := range before {
		c.drops = append(c.drops, key)
		if len(old.Slices) > 0 {
			c.lists = append(c.lists, key)
		}
	}
	return c
}

// eachMembership yields the memberships of a version of a slice that another version does not have. Any client may
// have written the slice, so nothing of its content is certain.
func eachMembership(namespace string, without, of *v1alpha1.PolicyEndpointSliceSpec, yield func(membership)) {
	without, of = cmp.Or(without, nothing), cmp.Or(of, nothing)
	type pair struct{ without, of int }
	differences := map[pair][]policy.GroupKey{}
	others := classes(without)
	for a, class := range classes(of) {
		other, ok := others[a]
		if !ok {
			other = noClass
		}
		p := pair{other, class}
		groups, ok := differences[p]
		if !ok {
			has := groupsOfClass(namespace, without, other)
			for key := range groupsOfClass(namespace, of, class) {
				if !has[key] {
					groups = append(groups, key)
				}
			}
			differences[p] = groups
		}
		for _, key := range groups {
			yield(membership{a, key})
		}
	}
}

const noClass = -1

// classes returns the index of each address's class.
func classes(spec *v1alpha1.PolicyEndpointSliceSpec) map[v1alpha1.CIDR]int {
	out := make(map[v1alpha1.CIDR]int, len(spec.Addresses))
	rest := spec.Addresses
	for i := range spec.Classes {
		n := min(max(0, int(spec.Classes[i].Count)), len(rest))
		for _, a := range rest[:n] {
			out[a] = i
		}
		rest = rest[n:]
	}
	return out
}

func groupsOfClass(namespace string, spec *v1alpha1.PolicyEndpointSliceSpec, class int) map[policy.GroupKey]bool {
	out := map[policy.GroupKey]bool{}
	if class == noClass {
		return out
	}
	for _, g := range spec.Classes[class].Groups {
		if g >= 0 && int(g) < len(spec.Groups) {
			out[resolver.GroupOf(namespace, &spec.Groups[g])] = true
		}
	}
	return out
}
