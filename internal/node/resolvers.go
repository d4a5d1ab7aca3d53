package node

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// Resolvers are the trusted resolvers in ascending order: those DNS servers whose answers count for the domain names of policies.
func (n *Node) Resolvers() []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(n.resolvers))
	for r := range n.resolvers {
		out = append(out, r)
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

// resolversPort returns the port of a group of trusted resolvers, or false for any other group. Only kidoban's own namespace has them: a slice
// of another namespace cannot make an address a trusted resolver.
func (n *Node) resolversPort(key policy.GroupKey) (uint16, bool) {
	if key.Namespace != n.opts.SharedNamespace {
		return 0, false
	}
	return policy.ResolversPort(key.Name)
}

// wantResolvers makes this node follow the groups of trusted resolvers among these, although no policy refers to them.
func (n *Node) wantResolvers(groups []policy.GroupKey) {
	for _, key := range groups {
		if _, ok := n.resolversPort(key); ok && n.wanted[key] == 0 {
			n.want([]policy.GroupKey{key})
		}
	}
}

// updateMembers takes in which addresses enter and leave a group.
func (n *Node) updateMembers(key policy.GroupKey, add, remove []netip.Prefix) {
	port, ok := n.resolversPort(key)
	if !ok {
		n.compiler.UpdateGroup(key, add, remove)
		return
	}
	for _, p := range add {
		if p.IsSingleIP() {
			n.resolvers[netip.AddrPortFrom(p.Addr(), port)]++
		}
	}
	for _, p := range remove {
		r := netip.AddrPortFrom(p.Addr(), port)
		if n.resolvers[r]--; n.resolvers[r] <= 0 {
			delete(n.resolvers, r)
		}
	}
	n.compiler.SetResolvers(n.Resolvers())
}
