package node

import (
	"fmt"
	"math"
	"net/netip"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// group is the slices of a group that are here, and the members that the compiler has.
type group struct {
	slices   map[string]slice          // by object name
	compiled map[string][]netip.Prefix // by object name
	complete bool                      // all its slices have been here at one time
}

type slice struct {
	index, slices int
	members       []netip.Prefix
}

// SetSlice takes in a slice. On an error its previous version stays in force.
func (n *Node) SetSlice(now time.Time, pes *v1alpha1.PolicyEndpointSlice) error {
	n.begin(now)
	parsed := slice{index: int(pes.Spec.Index), slices: max(1, int(pes.Spec.Slices))}
	for i, a := range pes.Spec.Addresses {
		p, err := policy.ParseCIDR(a)
		if err != nil {
			return fmt.Errorf("spec.addresses[%d]: %w", i, err)
		}
		parsed.members = append(parsed.members, p)
	}
	key := GroupOf(pes)
	g := n.groups[key]
	if g == nil {
		g = &group{slices: map[string]slice{}, compiled: map[string][]netip.Prefix{}}
		n.groups[key] = g
	}
	g.slices[pes.Name] = parsed
	n.updateGroup(key, g)
	object := types.NamespacedName{Namespace: pes.Namespace, Name: pes.Name}
	before, ok := n.sliceGroup[object]
	n.sliceGroup[object] = key
	if ok && before != key { // deleted and created again while the watch was down
		n.dropSlice(before, pes.Name)
	}
	return nil
}

// GroupOf is the group that a slice is part of.
func GroupOf(pes *v1alpha1.PolicyEndpointSlice) policy.GroupKey {
	return policy.GroupKey{Namespace: pes.Namespace, Name: pes.Spec.Group}
}

// DeleteSlice takes in that a slice of a group is gone. Its addresses stay in force until the group is complete without it, or has no slice
// left and no policy.
func (n *Node) DeleteSlice(now time.Time, key policy.GroupKey, name string) {
	n.begin(now)
	object := types.NamespacedName{Namespace: key.Namespace, Name: name}
	if known, ok := n.sliceGroup[object]; ok {
		key = known // the last version of the object may be of another group, and unreadable
		delete(n.sliceGroup, object)
	}
	n.dropSlice(key, name)
}

// dropSlice removes a slice from a group.
func (n *Node) dropSlice(key policy.GroupKey, name string) {
	g := n.groups[key]
	if g == nil {
		return
	}
	delete(g.slices, name)
	n.updateGroup(key, g)
	n.dropUnused(key)
}

// updateGroup gives the compiler a group's members if the group is complete, or if a policy that could not wait for that uses it.
func (n *Node) updateGroup(key policy.GroupKey, g *group) {
	count, ok := g.count()
	if !ok {
		if g.complete || n.groupUsers[key] == 0 {
			return
		}
		count = math.MaxInt
	}
	for name, members := range g.compiled {
		if sl, here := g.slices[name]; ok && (!here || sl.index >= count) {
			n.compiler.UpdateGroup(key, nil, members)
			delete(g.compiled, name)
		}
	}
	for name, sl := range g.slices {
		if sl.index >= count {
			continue
		}
		add, remove := difference(g.compiled[name], sl.members)
		n.compiler.UpdateGroup(key, add, remove)
		g.compiled[name] = sl.members
	}
	if ok && !g.complete {
		g.complete = true
		n.groupCompleted(key)
	}
}

// count is the number of slices of the group; false while some of them are missing.
func (g *group) count() (int, bool) {
	count := 0
	indexes := map[int]bool{}
	for _, sl := range g.slices {
		indexes[sl.index] = true
		if sl.index == 0 {
			count = max(count, sl.slices)
		}
	}
	for i := range count {
		if !indexes[i] {
			return 0, false
		}
	}
	return count, count > 0
}

// members is the number of addresses that the compiler has of the group.
func (g *group) members() int {
	count := 0
	for _, m := range g.compiled {
		count += len(m)
	}
	return count
}

// dropUnused forgets a group that has no slice and that no version in force refers to.
func (n *Node) dropUnused(key policy.GroupKey) {
	g := n.groups[key]
	if g == nil || len(g.slices) > 0 || n.groupUsers[key] > 0 {
		return
	}
	for _, members := range g.compiled {
		n.compiler.UpdateGroup(key, nil, members)
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

func difference(old, now []netip.Prefix) (add, remove []netip.Prefix) {
	left := make(map[netip.Prefix]int, len(old))
	for _, p := range old {
		left[p]++
	}
	for _, p := range now {
		if left[p] > 0 {
			left[p]--
		} else {
			add = append(add, p)
		}
	}
	for p, n := range left {
		for range n {
			remove = append(remove, p)
		}
	}
	return add, remove
}
