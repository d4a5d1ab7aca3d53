package policy

import (
	"fmt"
	"net/netip"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// GroupPart is what a PolicyEndpointSlice has of one group.
type GroupPart struct {
	Group string
	// Slices are the names of the group's slices, if this slice lists them.
	Slices []string
	// Members are the addresses of the slice that are in the group, class by class. Parts of one slice share them.
	Members [][]netip.Prefix
}

// FromSlice reads a PolicyEndpointSlice.
func FromSlice(spec *v1alpha1.PolicyEndpointSliceSpec) ([]GroupPart, error) {
	addresses := make([]netip.Prefix, len(spec.Addresses))
	for i, a := range spec.Addresses {
		var err error
		if addresses[i], err = ParseCIDR(a); err != nil {
			return nil, fmt.Errorf("spec.addresses[%d]: %w", i, err)
		}
	}
	parts := make([]GroupPart, len(spec.Groups))
	names := make(map[string]bool, len(spec.Groups))
	for i := range spec.Groups {
		g := &spec.Groups[i]
		if names[g.Name] {
			return nil, fmt.Errorf("spec.groups[%d]: a second entry for group %s", i, g.Name)
		}
		names[g.Name] = true
		parts[i] = GroupPart{Group: g.Name, Slices: g.Slices}
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
