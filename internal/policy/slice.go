package policy

import (
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Slice is a PolicyEndpointSlice in a few bytes for each address. An agent receives many slices with groups that no policy on
// its node uses; it reads Parts of the others.
type Slice struct {
	metav1.ObjectMeta
	err    error  // why the slice cannot be read
	packed string // see pack
}

// GroupPart is what a slice has of one group.
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

// ReadSlice reads a PolicyEndpointSlice. Groups returns the error if it cannot be read.
func ReadSlice(pes *v1alpha1.PolicyEndpointSlice) *Slice {
	s := &Slice{ObjectMeta: metav1.ObjectMeta{Namespace: pes.Namespace, Name: pes.Name, UID: pes.UID, ResourceVersion: pes.ResourceVersion}}
	addresses, err := check(&pes.Spec)
	if s.err = err; err == nil {
		s.packed = pack(&pes.Spec, addresses)
	}
	return s
}

// check parses the addresses of a slice. Its error names what is wrong with them or with their classes.
func check(spec *v1alpha1.PolicyEndpointSliceSpec) (addresses []netip.Prefix, err error) {
	addresses = make([]netip.Prefix, len(spec.Addresses))
	for i, a := range spec.Addresses {
		if addresses[i], err = ParseCIDR(a); err != nil {
			return nil, fmt.Errorf("spec.addresses[%d]: %w", i, err)
		}
	}
	left := len(addresses)
	for i := range spec.Classes {
		c := &spec.Classes[i]
		if c.Count < 1 || int(c.Count) > left {
			return nil, fmt.Errorf("spec.classes[%d]: count is %d, and %d addresses are left", i, c.Count, left)
		}
		left -= int(c.Count)
		for j, g := range c.Groups {
			switch {
			case g < 0 || int(g) >= len(spec.Groups):
				return nil, fmt.Errorf("spec.classes[%d].groups[%d]: the slice has no group with index %d", i, j, g)
			case j > 0 && g <= c.Groups[j-1]:
				return nil, fmt.Errorf("spec.classes[%d].groups[%d]: the indexes must be in ascending order", i, j)
			}
		}
	}
	if left > 0 {
		return nil, fmt.Errorf("spec.classes: the last %d addresses are in no class", left)
	}
	return addresses, nil
}

// Groups returns the groups that the slice has parts of. shared is kidoban's own namespace. Only slices in that namespace can
// have members of shared groups and of groups of other namespaces: a client that may write slices in another namespace can add
// members to the groups of that namespace only.
func (s *Slice) Groups(shared string) ([]GroupKey, error) {
	if s.err != nil {
		return nil, s.err
	}
	in := unpacker(s.packed)
	out := make([]GroupKey, in.number())
	seen := make(map[GroupKey]bool, len(out))
	for i := range out {
		namespace := in.text()
		key := s.key(namespace, in.text())
		lists := in.skipTexts() + in.skipTexts()
		switch {
		case namespace != "" && s.Namespace != shared:
			return nil, fmt.Errorf("spec.groups[%d].namespace: is set, and only slices in namespace %s may have groups of other namespaces", i, shared)
		case key.Namespace != s.Namespace && lists > 0:
			return nil, fmt.Errorf("spec.groups[%d].slices: only a slice in namespace %s may list the slices of group %s", i, key.Namespace, key)
		case seen[key]:
			return nil, fmt.Errorf("spec.groups[%d]: a second entry for group %s", i, key)
		}
		seen[key], out[i] = true, key
	}
	return out, nil
}

// Parts returns the parts of those groups that are wanted. Of these, only Group keeps the Slice in memory.
func (s *Slice) Parts(wanted func(GroupKey) bool) []GroupPart {
	in := unpacker(s.packed)
	var out []GroupPart
	parts := make([]int, in.number()) // indexes into out, plus one; 0: not wanted
	for i := range parts {
		key := s.key(in.text(), in.text())
		if !wanted(key) {
			in.skipTexts()
			in.skipTexts()
			continue
		}
		out = append(out, GroupPart{Group: key, Slices: in.texts(), SharedSlices: in.texts()})
		parts[i] = len(out)
	}
	if len(out) == 0 {
		return nil
	}
	var groups []int
	for range in.number() {
		groups = groups[:0]
		for range in.number() {
			if i := parts[in.number()]; i > 0 {
				groups = append(groups, i-1)
			}
		}
		count := in.number()
		if len(groups) == 0 {
			for range count {
				in.prefix()
			}
			continue
		}
		members := make([]netip.Prefix, count)
		for i := range members {
			members[i] = in.prefix()
		}
		for _, i := range groups {
			out[i].Members = append(out[i].Members, members)
		}
	}
	out = slices.Clone(out) // without the room that is left in them
	for i := range out {
		out[i].Members = slices.Clone(out[i].Members)
	}
	return out
}

// key is the group's, by the namespace and the name that a slice has for it.
func (s *Slice) key(namespace, name string) GroupKey {
	if namespace == "" {
		namespace = s.Namespace
	}
	return GroupKey{Namespace: namespace, Name: name}
}
