package node

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// group is the parts of a group that are here, and those that the compiler has; both by the slice's name.
type group struct {
	parts     map[string]*policy.GroupPart
	compiled  map[string]*policy.GroupPart
	complete  bool // all slices that are listed are here
	completed bool // it has been complete at one time
}

// SetSlice takes in a slice. On an error its previous version stays in force.
func (n *Node) SetSlice(now time.Time, pes *v1alpha1.PolicyEndpointSlice) error {
	n.begin(now)
	parts, err := policy.FromSlice(&pes.Spec)
	if err != nil {
		return err
	}
	n.setParts(types.NamespacedName{Namespace: pes.Namespace, Name: pes.Name}, parts)
	return nil
}

// DeleteSlice takes in that a slice is gone. Its addresses stay in force until their group is complete without it, or has no slice left and no
// policy.
func (n *Node) DeleteSlice(now time.Time, slice types.NamespacedName) {
	n.begin(now)
	n.setParts(slice, nil)
}

// setParts replaces what a slice has of its groups.
func (n *Node) setParts(slice types.NamespacedName, parts []policy.GroupPart) {
	before := n.slices[slice]
	if n.slices[slice] = parts; len(parts) == 0 {
		delete(n.slices, slice)
	}
	for i := range parts {
		n.setPart(policy.GroupKey{Namespace: slice.Namespace, Name: parts[i].Group}, slice.Name, &parts[i])
	}
	for i := range before {
		key := policy.GroupKey{Namespace: slice.Namespace, Name: before[i].Group}
		if g := n.groups[key]; g.parts[slice.Name] == &before[i] { // the slice has no other part of the group now
			delete(g.parts, slice.Name)
			n.updateGroup(key, g)
			n.dropUnused(key)
		}
	}
}

// setPart replaces the part of a group that a slice has.
func (n *Node) setPart(key policy.GroupKey, slice string, part *policy.GroupPart) {
	g := n.groups[key]
	if g == nil {
		g = &group{parts: map[string]*policy.GroupPart{}, compiled: map[string]*policy.GroupPart{}}
		n.groups[key] = g
	}
	before := g.parts[slice]
	g.parts[slice] = part
	if g.complete && before != nil && g.compiled[slice] == before && slices.Equal(before.Slices, part.Slices) {
		n.compilePart(key, g, slice, part) // the group stays complete, and all other parts are as they were
		return
	}
	n.updateGroup(key, g)
}

// updateGroup gives the compiler a group's members if the group is complete, or if a policy that could not wait for that uses it.
func (n *Node) updateGroup(key policy.GroupKey, g *group) {
	g.complete = g.hasAllListed()
	if !g.complete && (g.completed || n.groupUsers[key] == 0) {
		return
	}
	for name, part := range g.parts {
		n.compilePart(key, g, name, part)
	}
	for name, part := range g.compiled {
		if g.complete && g.parts[name] == nil {
			n.compiler.UpdateGroup(key, nil, slices.Concat(part.Members...))
			delete(g.compiled, name)
		}
	}
	if g.complete && !g.completed {
		g.completed = true
		n.groupCompleted(key)
	}
}

// compilePart gives the compiler a part in place of the one that it has of the same slice.
func (n *Node) compilePart(key policy.GroupKey, g *group, slice string, part *policy.GroupPart) {
	before := g.compiled[slice]
	if before == part {
		return
	}
	g.compiled[slice] = part
	var old [][]netip.Prefix
	if before != nil {
		old = before.Members
	}
	add, remove := difference(old, part.Members)
	n.compiler.UpdateGroup(key, add, remove)
}

// hasAllListed reports whether a slice with a list of the group's slices is here, and all the slices in it. A slice that is not in the list
// counts as long as it is here: when slices are merged, the new list may arrive before the slice that takes over the addresses.
func (g *group) hasAllListed() bool {
	lists := 0
	for _, part := range g.parts {
		for _, name := range part.Slices {
			if g.parts[name] == nil {
				return false
			}
		}
		lists += min(1, len(part.Slices))
	}
	return lists > 0
}

// members is the number of addresses that the compiler has of the group.
func (g *group) members() int {
	count := 0
	for _, part := range g.compiled {
		for _, class := range part.Members {
			count += len(class)
		}
	}
	return count
}

// dropUnused forgets a group that has no slice and that no version in force refers to.
func (n *Node) dropUnused(key policy.GroupKey) {
	g := n.groups[key]
	if g == nil || len(g.parts) > 0 || n.groupUsers[key] > 0 {
		return
	}
	for _, part := range g.compiled {
		n.compiler.UpdateGroup(key, nil, slices.Concat(part.Members...))
	}
	delete(n.groups, key)
}

// groupCompleted looks again at the PolicyEndpoints that may have waited for a group.
func (n *Node) groupCompleted(group policy.GroupKey) {
	for key := range n.waiting {
		if key.Namespace == group.Namespace || group.Namespace == n.opts.SharedNamespace {
			n.activate(key)
		}
	}
}

// difference returns which addresses come and go with the members of a part.
func difference(old, now [][]netip.Prefix) (add, remove []netip.Prefix) {
	left := map[netip.Prefix]int{}
	for _, class := range old {
		for _, p := range class {
			left[p]++
		}
	}
	for _, class := range now {
		for _, p := range class {
			if left[p] > 0 {
				left[p]--
			} else {
				add = append(add, p)
			}
		}
	}
	for p, n := range left {
		for range n {
			remove = append(remove, p)
		}
	}
	return add, remove
}
