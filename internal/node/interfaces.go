package node

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Interfaces are what the node's links and routes say about where its pods and the outside are.
type Interfaces struct {
	// Routed are the addresses that the node's routes lead to, each alone, over a veth: by the veth's index. A veth that is a port of
	// a bridge is not in it, nor one that leads to a whole network.
	Routed map[uint32][]netip.Addr
	// Uplinks lead out of the node: interfaces with a route to a network, except bridges of workloads alone. Ascending.
	Uplinks []uint32
}

// Equal reports whether both are the same.
func (i Interfaces) Equal(other Interfaces) bool {
	return slices.Equal(i.Uplinks, other.Uplinks) && maps.EqualFunc(i.Routed, other.Routed, slices.Equal)
}

// Interfaces returns those that were taken in last.
func (n *Node) Interfaces() Interfaces { return n.interfaces }

// SetInterfaces takes in the node's interfaces. The Node keeps them: the caller does not change them afterwards.
func (n *Node) SetInterfaces(now time.Time, interfaces Interfaces) {
	n.begin(now)
	was := make(map[*pod]uint32, len(n.pods))
	for _, p := range n.pods {
		was[p] = n.interfaceOf(p)
	}
	n.interfaces = interfaces
	n.routed = map[netip.Addr]uint32{}
	for index, addrs := range interfaces.Routed {
		for _, addr := range addrs {
			if _, ok := n.routed[addr]; ok {
				n.routed[addr] = 0 // several interfaces lead to it
			} else {
				n.routed[addr] = index
			}
		}
	}
	n.compiler.SetUplinks(interfaces.Uplinks)
	for key, p := range n.pods {
		if n.interfaceOf(p) != was[p] {
			n.compilePod(key, p)
		}
	}
}

// interfaceOf returns the interface that is the pod's alone, or 0: all of the pod's routed addresses are behind it, and no other address is.
func (n *Node) interfaceOf(p *pod) uint32 {
	own := uint32(0)
	for _, addr := range p.addresses {
		index, ok := n.routed[addr]
		switch {
		case !ok:
		case index == 0 || own != 0 && own != index:
			return 0
		default:
			own = index
		}
	}
	for _, addr := range n.interfaces.Routed[own] {
		if !slices.Contains(p.addresses, addr) {
			return 0
		}
	}
	return own
}
