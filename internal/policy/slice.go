package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// GroupPart is what a PolicyEndpointSlice has of one group.
type GroupPart struct {
	Group GroupKey
	// Slices are the names of the group's slices in the namespace of this slice, and SharedSlices those in kidoban's own
	// namespace, if this slice lists them.
	Slices, SharedSlices []string
	// Members are the addresses of the slice that are in the group, class by class. Parts of one slice share them.
	Members [][]netip.Prefix
}

// Lists reports whether the part lists the group's slices.
func (p *GroupPart) Lists() bool { return len(p.Slices) > 0 || len(p.SharedSlices) > 0 }

// ListsLike reports whether two parts of one slice list the same slices of the group.
func (p *GroupPart) ListsLike(q *GroupPart) bool {
	return slices.Equal(p.Slices, q.Slices) && slices.Equal(p.SharedSlices, q.SharedSlices)
}

// FromSlice reads a PolicyEndpointSlice. shared is kidoban's own namespace. Only slices in that namespace can have members of
// shared groups and of groups of other namespaces: a client that may write slices in another namespace can add members to the
// groups of that namespace only.
func FromSlice(pes *v1alpha1.PolicyEndpointSlice, shared string) ([]GroupPart, error) {
	parts, err := groupParts(pes, shared)
	if err != nil {
		return nil, err
	}
	spec := &pes.Spec
	addresses := make([]netip.Prefix, len(spec.Addresses))
	for i, a := range spec.Addresses {
		if addresses[i], err = ParseCIDR(a); err != nil {
			return nil, fmt.Errorf("spec.addresses[%d]: %w", i, err)
		}
	}
	rest := addresses
	for i := range spec.Classes {
		c := &spec.Classes[i]
		if c.Count < 1 || int(c.Count) > len(rest) {
			return nil, fmt.Errorf("spec.classes[%d]: count is %d, and %d addresses are left", i, c.Count, len(rest))
		}
		var members []netip.Prefix
		members, rest = rest[:c.Count:c.Count], rest[c.Count:]
		for j, g := range c.Groups {
			switch {
			case g < 0 || int(g) >= len(parts):
				return nil, fmt.Errorf("spec.classes[%d].groups[%d]: the slice has no group with index %d", i, j, g)
			case j > 0 && g <= c.Groups[j-1]:
				return nil, fmt.Errorf("spec.classes[%d].groups[%d]: the indexes must be in ascending order", i, j)
			}
			parts[g].Members = append(parts[g].Members, members)
		}
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("spec.classes: the last %d addresses are in no class", len(rest))
	}
	return parts, nil
}

// groupParts reads a slice's groups, without their members.
func groupParts(pes *v1alpha1.PolicyEndpointSlice, shared string) ([]GroupPart, error) {
	parts := make([]GroupPart, len(pes.Spec.Groups))
	seen := make(map[GroupKey]bool, len(parts))
	for i := range pes.Spec.Groups {
		g := &pes.Spec.Groups[i]
		key := GroupKey{Namespace: pes.Namespace, Name: g.Name}
		if g.Namespace != "" {
			key.Namespace = g.Namespace
		}
		lists := len(g.Slices) > 0 || len(g.SharedSlices) > 0
		switch {
		case g.Namespace != "" && pes.Namespace != shared:
			return nil, fmt.Errorf("spec.groups[%d].namespace: is set, and only slices in namespace %s may have groups of other namespaces", i, shared)
		case key.Namespace != pes.Namespace && lists:
			return nil, fmt.Errorf("spec.groups[%d].slices: only a slice in namespace %s may list the slices of group %s", i, key.Namespace, key)
		case seen[key]:
			return nil, fmt.Errorf("spec.groups[%d]: a second entry for group %s", i, key)
		}
		seen[key] = true
		parts[i] = GroupPart{Group: key, Slices: g.Slices, SharedSlices: g.SharedSlices}
	}
	return parts, nil
}
