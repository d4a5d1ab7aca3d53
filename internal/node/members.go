package node

import (
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// HasMembers reports whether each of these groups contains all of the addresses, and each group in left contains none. Groups that no policy
// in force on this node refers to do not count. The answer is about the compiler: the kernel has it when it has the current Revision.
func (n *Node) HasMembers(addresses []netip.Addr, groups, left []policy.GroupKey) bool {
	for _, addr := range addresses {
		contains := func(g policy.GroupKey) bool { return n.groupUsers[g] > 0 && n.compiler.Contains(g, addr) }
		lacks := func(g policy.GroupKey) bool { return n.groupUsers[g] > 0 && !n.compiler.Contains(g, addr) }
		if slices.ContainsFunc(groups, lacks) || slices.ContainsFunc(left, contains) {
			return false
		}
	}
	return true
}

// HadOtherOwner reports whether another pod of this node has one of these addresses, or had it until NamePatience ago.
func (n *Node) HadOtherOwner(key types.NamespacedName, addresses []netip.Addr) bool {
	return slices.ContainsFunc(addresses, func(addr netip.Addr) bool {
		isOther := func(owner types.NamespacedName) bool { return owner != key }
		_, isDeparted := n.departed[addr] // a pod that is here has not departed
		return isDeparted || slices.ContainsFunc(n.owners[addr], isOther)
	})
}

// HasStatusAddresses reports whether a pod's status has one of these addresses.
func (n *Node) HasStatusAddresses(key types.NamespacedName, addresses []netip.Addr) bool {
	obj := n.lastSeen(key)
	if obj == nil {
		return false
	}
	return slices.ContainsFunc(policy.PodAddresses(obj), func(addr netip.Addr) bool { return slices.Contains(addresses, addr) })
}
