package resolver

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/types"

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
	users   int   // number of policies that use it
	id      int32 // in the space
	// lacks are pods whose addresses are not in it yet (see Fill).
	lacks map[types.NamespacedName]struct{}
	// leaving are pods whose addresses are still in it, while it is forgotten in steps.
	leaving []types.NamespacedName
}

// acquire adds a user to a group, and creates the group for the first one.
func (r *Resolver) acquire(from string, ref groupRef) {
	g, ok := r.groups[ref.key]
	if !ok {
		g = r.newGroup(from, ref)
	}
	g.users++
	g.leaving = nil
	r.fill(g, slices.SortedFunc(maps.Keys(g.lacks), compareNames))
}

// newGroup creates a group that lacks all of its pods.
func (r *Resolver) newGroup(from string, ref groupRef) *group {
	m := r.matcher(from, ref.set)
	g := &group{key: ref.key, matcher: m, port: ref.port, within: ref.set.within}
	r.groups[g.key] = g
	if g.port == nil {
		m.group = g
	} else {
		m.byPort[*g.port] = append(m.byPort[*g.port], g)
	}
	g.id = r.space.use(g.key, m.scope.selector != nil, g.selector())
	for p := range r.pods(m) {
		if g.holds(p) {
			if g.lacks == nil {
				g.lacks = map[types.NamespacedName]struct{}{}
			}
			g.lacks[p.Key] = struct{}{}
		}
	}
	return g
}

// release removes a user of a group. Without a user the group goes on following its pods until Forget,
// because a PolicyEndpoint may still refer to it.
func (r *Resolver) release(key policy.GroupKey) {
	g := r.groups[key]
	if g.users--; g.users == 0 {
		r.unused[key] = struct{}{}
	}
}

// drain takes addresses of pods out of a group without a user, and reports whether that is to be done again before forget. They are as many as
// Fill puts in at a time, in the same order.
func (r *Resolver) drain(g *group) (more bool) {
	if r.groupSize(g) <= r.fillAtOnce {
		return false
	}
	if g.leaving == nil {
		for p := range r.pods(g.matcher) {
			if g.holds(p) && g.isIn(p) {
				g.leaving = append(g.leaving, p.Key)
			}
		}
		slices.SortFunc(g.leaving, compareNames)
	}
	n := min(len(g.leaving), r.fillAtOnce)
	for _, key := range g.leaving[:n] {
		if ns, ok := r.namespaces[key.Namespace]; ok {
			if p, ok := ns.pods[key.Name]; ok && slices.Contains(p.in, g.matcher) && g.holds(p) && g.isIn(p) {
				r.place(g, g.of(p), nil, p)
				if g.lacks == nil {
					g.lacks = map[types.NamespacedName]struct{}{}
				}
				g.lacks[key] = struct{}{}
			}
		}
	}
	g.leaving = g.leaving[n:]
	return n > 0
}

// forget removes a group without a user.
func (r *Resolver) forget(g *group) {
	delete(r.groups, g.key)
	if g.port == nil {
		g.matcher.group = nil
	} else {
		g.matcher.dropGroup(g)
	}
	r.space.drop(g.id)
	r.dropMatcher(g.matcher)
}

// place removes and adds addresses of a pod; the added ones are of next.
func (r *Resolver) place(g *group, remove, add []address, next *pod) {
	for _, a := range remove {
		r.space.remove(g.id, a)
	}
	for _, a := range add {
		r.space.add(g.id, a, next.addresses[0])
	}
}

// groupSize is the number of addresses in a group.
func (r *Resolver) groupSize(g *group) int { return r.space.groups[g.id].size }

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

// isIn reports whether the addresses of a pod that the group holds are in it.
func (g *group) isIn(p *pod) bool {
	_, lacks := g.lacks[p.Key]
	return !lacks
}

// of returns the pod's addresses that belong to the group.
func (g *group) of(p *pod) []address { return g.within.of(p) }

// selector is what the group is resolved from, in the form of the API.
func (g *group) selector() *v1alpha1.GroupSelector {
	if g.matcher.scope.isNodes() {
		return &v1alpha1.GroupSelector{NodeSelector: g.matcher.selector.labelSelector()}
	}
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
