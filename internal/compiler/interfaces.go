package compiler

import (
	"maps"
	"slices"
)

// interfaces are what the compiler knows of this node's interfaces, by index.
type interfaces struct {
	uplinks map[uint32]struct{}
	owners  map[uint32]map[string]Interface // what it is for each pod, by the pod's key: several for a moment, while they change places
	dirty   map[uint32]struct{}
}

func newInterfaces() interfaces {
	return interfaces{uplinks: map[uint32]struct{}{}, owners: map[uint32]map[string]Interface{}, dirty: map[uint32]struct{}{}}
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

// moveInterfaces notes which interfaces are a pod's from now on. moved: entries of its addresses change, too.
func (c *Compiler) moveInterfaces(key string, p *pod, moved bool) {
	now := p.spec.Interfaces
	if len(p.spec.Addresses) == 0 {
		now = nil
	}
	if !moved && slices.Equal(p.behind, now) {
		return
	}
	for _, i := range p.behind {
		c.interfaces.dirty[i] = struct{}{}
		if delete(c.interfaces.owners[i], key); len(c.interfaces.owners[i]) == 0 {
			delete(c.interfaces.owners, i)
		}
	}
	for _, i := range now {
		c.interfaces.dirty[i] = struct{}{}
		if c.interfaces.owners[i] == nil {
			c.interfaces.owners[i] = map[string]Interface{}
		}
		c.interfaces.owners[i][key] = Interface{Kind: PodInterface, Flags: p.spec.Flags, Pod: now[0]}
	}
	p.behind = now
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
	for _, key := range slices.Sorted(maps.Keys(c.interfaces.owners[i])) {
		owner := c.interfaces.owners[i][key]
		owner.Flags |= v.Flags
		v = owner
	}
	return v
}
