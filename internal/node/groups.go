package node

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// group is a group that slices have, or that a policy uses. A group that no policy uses has no parts: its addresses stay in the slices.
type group struct {
	key       policy.GroupKey
	in        []*policy.Slice // that have it, by namespace and name
	parts     map[types.NamespacedName]*policy.GroupPart
	compiled  map[types.NamespacedName]*policy.GroupPart // of the parts, what the compiler has
	complete  bool                                       // all slices that are listed are here
	completed bool                                       // it has been complete at one time since a policy uses it
}

// SetSlice takes in a slice. On an error its previous version stays in force.
func (n *Node) SetSlice(now time.Time, s *policy.Slice) error {
	n.begin(now)
	groups, err := s.Groups(n.opts.SharedNamespace)
	if err != nil {
		return err
	}
	n.replaceSlice(nameOf(s), s, groups)
	return nil
}

// DeleteSlice takes in that a slice is gone. Its addresses stay in force until their group is complete without it, or has no slice left and no
// policy.
func (n *Node) DeleteSlice(now time.Time, slice types.NamespacedName) {
	n.begin(now)
	n.replaceSlice(slice, nil, nil)
}

func nameOf(s *policy.Slice) types.NamespacedName {
	return types.NamespacedName{Namespace: s.Namespace, Name: s.Name}
}

// replaceSlice replaces a slice, by one that has these groups; nil for none.
func (n *Node) replaceSlice(name types.NamespacedName, s *policy.Slice, groups []policy.GroupKey) {
	before := n.slices[name]
	if n.slices[name] = s; s == nil {
		delete(n.slices, name)
	}
	n.wantResolvers(groups)
	has := make(map[policy.GroupKey]bool, len(groups))
	for _, key := range groups {
		has[key] = true
		n.groupOf(key).addSlice(name, s)
	}
	// Groups that go before groups that come: a policy that is activated by the second does not use the first.
	n.removeParts(before, name, has)
	if s == nil {
		return
	}
	parts := s.Parts(n.isWanted)
	for i := range parts {
		if n.isWanted(parts[i].Group) { // also after a policy has been activated that waited for one of the others
			n.setPart(name, &parts[i])
		}
	}
}

// removeParts records that a slice does not have the groups any more that a version of it had; nil for no version.
func (n *Node) removeParts(before *policy.Slice, name types.NamespacedName, has map[policy.GroupKey]bool) {
	if before == nil {
		return
	}
	had, err := before.Groups(n.opts.SharedNamespace)
	if err != nil {
		return // SetSlice has read it before without an error
	}
	for _, key := range had {
		if !has[key] {
			n.removePart(key, name)
		}
	}
}

func (n *Node) isWanted(key policy.GroupKey) bool { return n.wanted[key] > 0 }

// groupOf returns a group, also one that nothing was known of.
func (n *Node) groupOf(key policy.GroupKey) *group {
	g := n.groups[key]
	if g == nil {
		g = &group{key: policy.GroupKey{Namespace: strings.Clone(key.Namespace), Name: strings.Clone(key.Name)}}
		n.groups[g.key] = g
	}
	if n.isWanted(key) && g.parts == nil {
		g.parts, g.compiled = map[types.NamespacedName]*policy.GroupPart{}, map[types.NamespacedName]*policy.GroupPart{}
	}
	return g
}

func (g *group) find(name types.NamespacedName) (int, bool) {
	return slices.BinarySearchFunc(g.in, name, func(s *policy.Slice, name types.NamespacedName) int {
		return cmp.Or(strings.Compare(s.Namespace, name.Namespace), strings.Compare(s.Name, name.Name))
	})
}

// addSlice records that a slice has the group, in place of its previous version.
func (g *group) addSlice(name types.NamespacedName, s *policy.Slice) {
	if i, has := g.find(name); has {
		g.in[i] = s
	} else {
		g.in = slices.Insert(g.in, i, s)
	}
}

// want counts further references to groups, from a version that is in force or waits. The parts of groups that had none are read.
func (n *Node) want(groups []policy.GroupKey) {
	var added []*group
	for _, key := range groups {
		if n.wanted[key]++; n.wanted[key] == 1 && n.groups[key] != nil {
			added = append(added, n.groupOf(key))
		}
	}
	read := map[*policy.Slice]bool{}
	for _, g := range added {
		for _, s := range g.in {
			if !read[s] {
				read[s] = true
				n.readParts(s)
			}
		}
	}
	for _, g := range added {
		n.compileGroup(g.key, g) // no policy waits for it yet
	}
}

// readParts reads all wanted parts of a slice, also those that were read before: together they share the addresses.
func (n *Node) readParts(s *policy.Slice) {
	name := nameOf(s)
	parts := s.Parts(n.isWanted)
	for i := range parts {
		part := &parts[i]
		g := n.groups[part.Group]
		part.Group = g.key
		if before := g.parts[name]; before != nil && g.compiled[name] == before {
			g.compiled[name] = part
		}
		g.parts[name] = part
	}
}

// release takes references to groups back. Those that have none any more keep no parts.
func (n *Node) release(groups []policy.GroupKey) {
	for _, key := range groups {
		if n.wanted[key]--; n.wanted[key] > 0 {
			continue
		}
		delete(n.wanted, key)
		if g := n.groups[key]; g != nil {
			n.withdrawGroup(key, g)
			g.parts, g.compiled = nil, nil
			n.dropUnused(key)
		}
	}
}

// setPart replaces the part of a group that a slice has.
func (n *Node) setPart(slice types.NamespacedName, part *policy.GroupPart) {
	g := n.groups[part.Group]
	key := g.key
	part.Group = key // which does not keep the slice in memory
	before := g.parts[slice]
	g.parts[slice] = part
	if g.complete && before != nil && g.compiled[slice] == before && before.ListsLike(part) {
		n.compilePart(key, g, slice, part) // the group stays complete, and all other parts are as they were
		return
	}
	n.updateGroup(key, g)
}

// removePart records that a slice does not have a group any more.
func (n *Node) removePart(key policy.GroupKey, slice types.NamespacedName) {
	g := n.groups[key]
	if i, has := g.find(slice); has {
		g.in = slices.Delete(g.in, i, i+1)
	}
	if g.parts[slice] != nil {
		delete(g.parts, slice)
		n.updateGroup(key, g)
	}
	n.dropUnused(key)
}

// updateGroup compiles a group and activates the policies that waited for it.
func (n *Node) updateGroup(key policy.GroupKey, g *group) {
	if n.compileGroup(key, g) {
		n.groupCompleted(key)
	}
}

// compileGroup gives the compiler a group's members if the group is complete, or if a policy that could not wait for that uses it. It reports
// whether the group is complete for the first time.
func (n *Node) compileGroup(key policy.GroupKey, g *group) (completed bool) {
	g.complete = g.hasAllListed(n.opts.SharedNamespace)
	if !g.complete && (g.completed || n.groupUsers[key] == 0) {
		return false
	}
	for name, part := range g.parts {
		n.compilePart(key, g, name, part)
	}
	for name, part := range g.compiled {
		if g.complete && g.parts[name] == nil {
			n.updateMembers(key, nil, slices.Concat(part.Members...))
			delete(g.compiled, name)
		}
	}
	completed = g.complete && !g.completed
	g.completed = g.completed || g.complete
	return completed
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
	n.updateMembers(key, add, remove)
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
	if g == nil || len(g.in) > 0 || n.groupUsers[key] > 0 {
		return
	}
	n.withdrawGroup(key, g)
	delete(n.groups, key)
	if _, ok := n.resolversPort(key); ok {
		delete(n.wanted, key)
	}
}

// withdrawGroup takes a group's members out of the compiler. The group counts as complete only when it is complete again.
func (n *Node) withdrawGroup(key policy.GroupKey, g *group) {
	for _, part := range g.compiled {
		n.updateMembers(key, nil, slices.Concat(part.Members...))
	}
	clear(g.compiled)
	g.complete, g.completed = false, false
}

// forgetSlices drops the slices of a namespace. The shared namespace's slices may still have its groups.
func (n *Node) forgetSlices(namespace string) {
	for name := range n.slices {
		if name.Namespace == namespace {
			n.replaceSlice(name, nil, nil)
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
