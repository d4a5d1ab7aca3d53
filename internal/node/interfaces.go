package node

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Interfaces are the links of this node, by where they and the node's routes lead: to pods, or out of the node.
type Interfaces struct {
	// Routed are the addresses that the node's routes lead to, each alone, over a veth: by the veth's index. A veth that is a port of
	// a bridge is not in it, nor one that leads to a network.
	Routed map[uint32][]netip.Addr
	// Namespaces are the network namespaces that the other ends of veths are in, by the veth's index. It has the same veths as Routed,
	// and those that no route leads over.
	Namespaces map[uint32]NetNS
	// Uplinks lead out of the node: interfaces with a route to a network, except bridges of workloads alone. For a veth of a pod, and
	// for a bridge of workloads, routes do not count that a router advertisement or a redirect brought: a pod may have sent it.
	// Ascending.
	Uplinks []uint32
}

// NetNS is the kernel's number for a network namespace, as the node's own namespace has it. A number may come back after its namespace is
// gone.
type NetNS int32

// Equal reports whether both are the same.
func (i Interfaces) Equal(other Interfaces) bool {
	return slices.Equal(i.Uplinks, other.Uplinks) && maps.EqualFunc(i.Routed, other.Routed, slices.Equal) && maps.Equal(i.Namespaces, other.Namespaces)
}

// netns is a network namespace that veths of this node lead into.
type netns struct {
	id         NetNS
	interfaces []uint32     // ascending
	addresses  []netip.Addr // that routes lead to, into this namespace and no other
	owner      owner
}

// owner is the pod that a network namespace belongs to. The zero value: none is known.
type owner struct {
	pod types.NamespacedName
	// shared: other pods have addresses in the namespace, too, so that its interfaces are no pod's alone.
	shared bool
}

// location is where a pod is, by the node's links and routes.
type location struct {
	interfaces []uint32 // the pod's own
	// unlisted are addresses that routes lead to and neither the pod's status nor the container runtime shows.
	unlisted []netip.Addr
}

// Interfaces returns those that were taken in last.
func (n *Node) Interfaces() Interfaces { return n.interfaces }

// SetInterfaces takes in the node's interfaces. The Node keeps them: the caller does not change them afterwards.
func (n *Node) SetInterfaces(now time.Time, interfaces Interfaces) {
	n.begin(now)
	was := make(map[*pod]location, len(n.pods))
	for key, p := range n.pods {
		was[p] = n.locate(key)
	}
	n.interfaces = interfaces
	n.setNetworkNamespaces()
	n.compiler.SetUplinks(interfaces.Uplinks)
	for key, p := range n.pods {
		if now := n.locate(key); !slices.Equal(now.interfaces, was[p].interfaces) || !slices.Equal(now.unlisted, was[p].unlisted) {
			n.compilePod(key, p)
		}
	}
}

// setNetworkNamespaces makes netns and routed from the interfaces. The kernel names the namespace of a veth's other end: veths with the same
// one belong to the same pod. A veth without such a name counts as the only one of its namespace.
func (n *Node) setNetworkNamespaces() {
	before := map[uint32]types.NamespacedName{}
	for key, all := range n.owned {
		for _, ns := range all {
			for _, index := range ns.interfaces {
				before[index] = key
			}
		}
	}
	n.netns, n.routed, n.owned = map[NetNS]*netns{}, map[netip.Addr]*netns{}, map[types.NamespacedName][]*netns{}
	in := func(index uint32) *netns {
		id, ok := n.interfaces.Namespaces[index]
		if !ok {
			id = -1 - NetNS(index)
		}
		if n.netns[id] == nil {
			n.netns[id] = &netns{id: id}
		}
		return n.netns[id]
	}
	for index := range n.interfaces.Namespaces {
		ns := in(index)
		ns.interfaces = append(ns.interfaces, index)
	}
	for index, addrs := range n.interfaces.Routed {
		ns := in(index)
		if !slices.Contains(ns.interfaces, index) {
			ns.interfaces = append(ns.interfaces, index)
		}
		for _, addr := range addrs {
			if other, ok := n.routed[addr]; !ok || other == ns {
				n.routed[addr] = ns
			} else {
				n.routed[addr] = nil
			}
		}
	}
	for addr, ns := range n.routed {
		if ns != nil {
			ns.addresses = append(ns.addresses, addr)
		}
	}
	for _, ns := range n.netns {
		slices.Sort(ns.interfaces)
		slices.SortFunc(ns.addresses, netip.Addr.Compare)
		o := n.ownerOf(ns)
		for _, index := range ns.interfaces {
			// A pod with the right to may delete its first interface, or put others elsewhere: they stay its own.
			if (o.pod == types.NamespacedName{}) && n.pods[before[index]] != nil {
				o.pod = before[index]
			}
		}
		n.setOwner(ns, o)
	}
}

func (n *Node) setOwner(ns *netns, o owner) {
	if ns.owner.pod != o.pod {
		was := ns.owner.pod
		if n.owned[was] = slices.DeleteFunc(n.owned[was], func(other *netns) bool { return other == ns }); len(n.owned[was]) == 0 {
			delete(n.owned, was)
		}
		n.owned[o.pod] = append(n.owned[o.pod], ns)
	}
	ns.owner = o
}

// ownerOf returns the pod that a network namespace belongs to: the one that has addresses in it.
func (n *Node) ownerOf(ns *netns) owner {
	var out owner
	for _, addr := range ns.addresses {
		if len(n.owners[addr]) == 0 {
			continue
		}
		key := n.owner(addr)
		switch out.pod {
		case key:
		case types.NamespacedName{}:
			out.pod = key
		default: // a pod's status describes a former sandbox, or a pod forwards for another
			out.shared = true
			if n.pods[out.pod].compareAge(n.pods[key]) < 0 {
				out.pod = key
			}
		}
	}
	return out
}

// compareAge orders pods by their age, the oldest first.
func (p *pod) compareAge(q *pod) int {
	return cmp.Or(p.created.Compare(q.created), cmp.Compare(p.uid, q.uid))
}

// reassign finds the owners of the network namespaces that have some addresses anew, and gives the compiler the pods of those that change.
func (n *Node) reassign(addrs []netip.Addr) {
	for _, addr := range addrs {
		ns := n.routed[addr]
		if ns == nil {
			continue
		}
		was, now := ns.owner, n.ownerOf(ns)
		if (now.pod == types.NamespacedName{}) && n.pods[was.pod] != nil {
			now.pod = was.pod
		}
		if n.setOwner(ns, now); now == was && !now.shared {
			continue
		}
		for _, key := range []types.NamespacedName{was.pod, now.pod} {
			if p := n.pods[key]; p != nil {
				n.compilePod(key, p)
			}
		}
	}
}

// locate returns where a pod is. It has no interface of its own where it shares its network namespace.
func (n *Node) locate(key types.NamespacedName) location {
	var out location
	for _, ns := range n.owned[key] {
		if !ns.owner.shared {
			out.interfaces = append(out.interfaces, ns.interfaces...)
		}
		for _, a := range ns.addresses {
			if len(n.owners[a]) == 0 {
				out.unlisted = append(out.unlisted, a)
			}
		}
	}
	slices.Sort(out.interfaces)
	slices.SortFunc(out.unlisted, netip.Addr.Compare)
	return out
}
