package resolver

import (
	"fmt"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// group is a set of addresses: of the pods of a matcher, of only those that have a named port, or of only
// those addresses that are in a block.
type group struct {
	key     policy.GroupKey
	matcher *matcher
	port    *policy.NamedPort
	within  *block
	users   int // number of policies that use it
	*placement
}

// acquire adds a user to a group, and creates the group for the first one.
func (r *Resolver) acquire(from string, ref groupRef) {
	if g, ok := r.groups[ref.key]; ok {
		g.users++
		return
	}
	m := r.matcher(from, ref.set)
	g := &group{key: ref.key, matcher: m, port: ref.port, within: ref.set.within, users: 1, placement: newPlacement(r.options.MaxAddresses)}
	r.groups[g.key] = g
	if g.port == nil {
		m.group = g
	} else {
		m.byPort[*g.port] = append(m.byPort[*g.port], g)
	}
	left := r.left[g.key]
	delete(r.left, g.key)
	switch {
	case r.existing != nil:
		g.adopt(adoptable(r.existing.Slices[g.key]))
	case left != nil:
		g.adopt(left)
	}
	for _, p := range r.pods(m) {
		if g.holds(p) {
			g.update(nil, g.of(p), func(int32) {})
		}
	}
	if left != nil && r.existing == nil {
		g.placement.endAdoption()
	}
	if !g.adopting {
		r.markAll(g, +1)
	}
}

// release removes a user of a group, and the group with the last one.
func (r *Resolver) release(key policy.GroupKey) {
	g := r.groups[key]
	if g.users--; g.users > 0 {
		return
	}
	delete(r.groups, key)
	if g.port == nil {
		g.matcher.group = nil
	} else {
		g.matcher.dropGroup(g)
	}
	if !g.adopting {
		r.markAll(g, -1)
		r.left[key] = g.slices
	}
	r.dropMatcher(g.matcher)
}

// endAdoption ends the adoption of a group's existing slices.
func (r *Resolver) endAdoption(g *group) {
	if g.adopting {
		g.placement.endAdoption()
		r.markAll(g, +1)
	}
}

// markAll records that all of a group's slices appeared (+1) or disappeared (-1).
func (r *Resolver) markAll(g *group, sign int) {
	for i := range g.slices {
		r.changedSlices[SliceKey{g.key, int32(i)}] = struct{}{}
	}
	r.stats.Slices += sign * len(g.slices)
	r.stats.Addresses += sign * len(g.members)
}

// place removes and adds addresses of one pod.
func (r *Resolver) place(g *group, remove, add []address) {
	slices, addresses := len(g.slices), len(g.members)
	g.update(remove, add, func(i int32) { r.changedSlices[SliceKey{g.key, i}] = struct{}{} })
	if !g.adopting {
		r.stats.Slices += len(g.slices) - slices
		r.stats.Addresses += len(g.members) - addresses
	}
}

// holds reports whether a pod that the matcher selects is in the group.
func (g *group) holds(p *pod) bool {
	if g.port == nil {
		return true
	}
	for _, port := range p.Ports {
		if port == *g.port {
			return true
		}
	}
	return false
}

// of returns the pod's addresses that belong to the group.
func (g *group) of(p *pod) []address { return g.within.of(p) }

// SliceName is the name of a group's slice.
func SliceName(group string, index int32) string { return fmt.Sprintf("%s-%d", group, index) }

// SliceNames are the names of a group's slices.
func SliceNames(group string, count int) []string {
	names := make([]string, count)
	for i := range names {
		names[i] = SliceName(group, int32(i))
	}
	slices.Sort(names)
	return names
}

func (g *group) slice(index int32) v1alpha1.PolicyEndpointSliceSpec {
	part := v1alpha1.GroupPart{Name: g.key.Name}
	if index == 0 {
		part.Slices = SliceNames(g.key.Name, len(g.slices))
		part.Selector = g.selector()
	}
	out := v1alpha1.PolicyEndpointSliceSpec{
		Groups:    []v1alpha1.GroupPart{part},
		Addresses: g.addresses(index),
		Count:     int32(len(g.slices[index])),
	}
	if out.Count > 0 {
		out.Classes = []v1alpha1.AddressClass{{Groups: []int32{0}, Count: out.Count}}
	}
	return out
}

func (g *group) selector() *v1alpha1.GroupSelector {
	out := &v1alpha1.GroupSelector{PodSelector: g.matcher.selector.labelSelector()}
	if s := g.matcher.scope.selector; s != nil {
		out.NamespaceSelector = s.labelSelector()
	}
	if g.port != nil {
		out.Port = &v1alpha1.NamedPort{Protocol: v1alpha1.Protocol(g.port.Protocol.String()), Name: g.port.Name, Port: int32(g.port.Port)}
	}
	if g.within != nil {
		out.IPBlock = &v1alpha1.IPBlock{CIDR: v1alpha1.CIDR(g.within.cidr.String())}
		for _, e := range g.within.except {
			out.IPBlock.Except = append(out.IPBlock.Except, v1alpha1.CIDR(e.String()))
		}
	}
	return out
}

// adoptable returns the addresses of existing slices by index. Any client may have written a slice, so
// nothing of its content is certain. A slice whose index shows that others are missing is not adopted.
func adoptable(specs map[int32]v1alpha1.PolicyEndpointSliceSpec) [][]address {
	out := make([][]address, len(specs))
	for index, s := range specs {
		if index < 0 || int(index) >= len(out) {
			continue
		}
		for _, c := range s.Addresses {
			if p, err := parsePrefix(string(c)); err == nil && p.IsSingleIP() {
				out[index] = append(out[index], p.Addr().As16())
			}
		}
	}
	return out
}
