package node

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// group is the parts of a group that are here, and those that the compiler has; both by the slice's name.
type group struct {
	parts     map[types.NamespacedName]*policy.GroupPart
	compiled  map[types.NamespacedName]*policy.GroupPart
	complete  bool // all slices that are listed are here
	completed bool // it has been complete at one time
}

// SetSlice takes in a slice. On an error its previous version stays in force.
func (n *Node) SetSlice(now time.Time, pes *v1alpha1.PolicyEndpointSlice) error {
	n.begin(now)
	parts, err := policy.FromSlice(pes, n.opts.SharedNamespace)
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
		n.setPart(slice, &parts[i])
	}
	for i := range before {
		key := before[i].Group
		if g := n.groups[key]; g.parts[slice] == &before[i] { // the slice has no other part of the group now
			delete(g.parts, slice)
			n.updateGroup(key, g)
			n.dropUnused(key)
		}
	}
}

// setPart replaces the part of a group that a slice has.
func (n *Node) setPart(slice types.NamespacedName, part *policy.GroupPart) {
	key := part.Group
	g := n.groups[key]
	if g == nil {
		g = &group{parts: map[types.NamespacedName]*policy.GroupPart{}, compiled: map[types.NamespacedName]*policy.GroupPart{}}
		n.groups[key] = g
	}
	before := g.parts[slice]
	g.parts[slice] = part
	if g.complete && before != nil && g.compiled[slice] == before && before.ListsLike(part) {
		n.compilePart(key, g, slice, part) // the group stays complete, and all other parts are as they were
		return
	}
	n.updateGroup(key, g)
}

// updateGroup gives the compiler a group's members if the group is complete, or if a policy that could not wait for that uses it.
func (n *Node) updateGroup(key policy.GroupKey, g *group) {
	g.complete = g.hasAllListed(n.opts.SharedNamespace)
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
func (n *Node) compilePart(key policy.GroupKey, g *group, slice types.NamespacedName, part *policy.GroupPart) {
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
func (g *group) hasAllListed(shared string) bool {
	isListed := false
	for slice, part := range g.parts {
		isListed = isListed || part.Lists()
		if !g.hasAll(slice.Namespace, part.Slices) || !g.hasAll(shared, part.SharedSlices) {
			return false
		}
	}
	return isListed
}

// hasAll reports whether slices of a namespace are here and have the group.
func (g *group) hasAll(namespace string, names []string) bool {
	for _, name := range names {
		if g.parts[types.NamespacedName{Namespace: namespace, Name: name}] == nil {
			return false
		}
	}
	return true
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
	n.withdrawGroup(key, g)
	delete(n.groups, key)
}

// withdrawGroup takes a group's members out of the compiler. The group counts as complete only when it is complete again.
func (n *Node) withdrawGroup(key policy.GroupKey, g *group) {
	for _, part := range g.compiled {
		n.compiler.UpdateGroup(key, nil, slices.Concat(part.Members...))
	}
	clear(g.compiled)
	g.complete, g.completed = false, false
}

// forgetSlices drops the slices of a namespace. What the shared namespace has of its local groups stays.
func (n *Node) forgetSlices(namespace string) {
	isOf := func(slice types.NamespacedName) bool { return slice.Namespace == namespace }
	maps.DeleteFunc(n.slices, func(slice types.NamespacedName, _ []policy.GroupPart) bool { return isOf(slice) })
	for key, g := range n.groups {
		if key.Namespace == namespace {
			maps.DeleteFunc(g.parts, func(slice types.NamespacedName, _ *policy.GroupPart) bool { return isOf(slice) })
			n.withdrawGroup(key, g)
			n.dropUnused(key)
		}
	}
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
