package compiler

import (
	"maps"
	"net/netip"
	"slices"
)

// interfaces are what the compiler knows of this node's interfaces, by index.
type interfaces struct {
	uplinks map[uint32]struct{}
	owners  map[uint32]map[netip.Addr]struct{} // the pods' addresses behind each
	dirty   map[uint32]struct{}
}

func newInterfaces() interfaces {
	return interfaces{uplinks: map[uint32]struct{}{}, owners: map[uint32]map[netip.Addr]struct{}{}, dirty: map[uint32]struct{}{}}
}

// SetUplinks sets all interfaces that lead out of the node.
func (c *Compiler) SetUplinks(indexes []uint32) {
	now := map[uint32]struct{}{}
	for _, i := range indexes {
		now[i] = struct{}{}
		if _, ok := c.interfaces.uplinks[i]; !ok {
			c.interfaces.dirty[i] = struct{}{}
		}
	}
	for i := range c.interfaces.uplinks {
		if _, ok := now[i]; !ok {
			c.interfaces.dirty[i] = struct{}{}
		}
	}
	c.interfaces.uplinks = now
}

// movePod notes that an address's entry becomes another; the zero Pod stands for none.
func (c *Compiler) movePod(addr netip.Addr, old, now Pod) {
	if old.IfIndex == now.IfIndex && old.Flags == now.Flags {
		return
	}
	if i := old.IfIndex; i != 0 {
		c.interfaces.dirty[i] = struct{}{}
		if delete(c.interfaces.owners[i], addr); len(c.interfaces.owners[i]) == 0 {
			delete(c.interfaces.owners, i)
		}
	}
	if i := now.IfIndex; i != 0 {
		c.interfaces.dirty[i] = struct{}{}
		if c.interfaces.owners[i] == nil {
			c.interfaces.owners[i] = map[netip.Addr]struct{}{}
		}
		c.interfaces.owners[i][addr] = struct{}{}
	}
}

// updateInterfaces writes what became of the interfaces that something changed about. Each is taken out before the pods
// change and put in after: meanwhile every source passes, and an honest one is never denied.
func (c *Compiler) updateInterfaces() {
	for _, i := range slices.Sorted(maps.Keys(c.interfaces.dirty)) {
		if _, ok := c.maps.Interfaces[i]; ok {
			c.changes.GoneInterfaces = append(c.changes.GoneInterfaces, i)
			delete(c.maps.Interfaces, i)
		}
		if v := c.interfaceValue(i); v != (Interface{}) {
			c.maps.Interfaces[i] = v
			c.changes.Interfaces = append(c.changes.Interfaces, Write[uint32, Interface]{Key: i, Value: v})
		}
	}
	clear(c.interfaces.dirty)
}

func (c *Compiler) interfaceValue(i uint32) Interface {
	if _, ok := c.interfaces.uplinks[i]; ok {
		return Interface{Kind: Uplink}
	}
	var v Interface
	for addr := range c.interfaces.owners[i] {
		v.Kind = PodInterface
		v.Flags |= c.maps.Pods[addr].Flags
	}
	return v
}
