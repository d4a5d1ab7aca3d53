package resolver

import "reflect"

// collides reports whether a group's name belongs to another group. Names are hashes of 128 bits, so that this does not
// happen by chance, and nothing must depend on that: a group of another's addresses would allow them.
func (r *Resolver) collides(ref groupRef) bool {
	g, ok := r.groups[ref.key]
	if !ok {
		return false
	}
	scope := g.matcher.scope.selector
	return (scope == nil) != (ref.set.namespaces == nil) || scope != nil && scope.key() != ref.set.namespaces.key() ||
		g.matcher.selector.key() != ref.set.pods.key() || !reflect.DeepEqual(g.port, ref.port) || !reflect.DeepEqual(g.within.keys(), ref.set.within.keys())
}
