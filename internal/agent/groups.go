package agent

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// A group is the slices that were seen of it, and what the compiler was told.
type group struct {
	slices map[string]slice          // by object name
	told   map[string][]netip.Prefix // by object name
	whole  bool                      // all its slices have been here at one time
}

type slice struct {
	index, slices int
	members       []netip.Prefix
}

// setSlice takes in a slice as it is now. On an error what was known of it stays.
func (s *state) setSlice(pes *v1alpha1.PolicyEndpointSlice) error {
	parsed := slice{index: int(pes.Spec.Index), slices: max(1, int(pes.Spec.Slices))}
	for i, a := range pes.Spec.Addresses {
		p, err := policy.ParseCIDR(a)
		if err != nil {
			return fmt.Errorf("spec.addresses[%d]: %w", i, err)
		}
		parsed.members = append(parsed.members, p)
	}
	key := groupOf(pes)
	g := s.groups[key]
	if g == nil {
		g = &group{slices: map[string]slice{}, told: map[string][]netip.Prefix{}}
		s.groups[key] = g
	}
	g.slices[pes.Name] = parsed
	s.settle(key, g)
	return nil
}

func groupOf(pes *v1alpha1.PolicyEndpointSlice) policy.GroupKey {
	return policy.GroupKey{Namespace: pes.Namespace, Name: pes.Spec.Group}
}

// deleteSlice forgets a slice. Its addresses stay in force until the group is whole again without it, or has no slice left and
// no policy.
func (s *state) deleteSlice(key policy.GroupKey, name string) {
	g := s.groups[key]
	if g == nil {
		return
	}
	delete(g.slices, name)
	s.settle(key, g)
	s.dropUnused(key)
}

// settle tells the compiler what a group's members are, if all of them are known, or if a policy could not wait for that.
func (s *state) settle(key policy.GroupKey, g *group) {
	count, ok := g.count()
	if !ok {
		if g.whole || s.groupUsers[key] == 0 {
			return
		}
		count = math.MaxInt
	}
	for name, members := range g.told {
		if sl, here := g.slices[name]; ok && (!here || sl.index >= count) {
			s.compiler.UpdateGroup(key, nil, members)
			delete(g.told, name)
		}
	}
	for name, sl := range g.slices {
		if sl.index >= count {
			continue
		}
		add, remove := difference(g.told[name], sl.members)
		s.compiler.UpdateGroup(key, add, remove)
		g.told[name] = sl.members
	}
	if ok && !g.whole {
		g.whole = true
		s.groupArrived(key)
	}
}

// count is the number of slices of the group; false while not all of them are here.
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

// dropUnused forgets a group that has no slice and that no policy in force refers to.
func (s *state) dropUnused(key policy.GroupKey) {
	g := s.groups[key]
	if g == nil || len(g.slices) > 0 || s.groupUsers[key] > 0 {
		return
	}
	for _, members := range g.told {
		s.compiler.UpdateGroup(key, nil, members)
	}
	delete(s.groups, key)
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
