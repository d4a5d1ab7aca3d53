package compiler

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/gaissmai/bart"

	"github.com/kidoban/kidoban/internal/policy"
)

// An atom is something that addresses belong to or not, and that a live set asks for: a group, or a CIDR less its excepts.
type atom struct {
	id      uint32
	key     atomKey
	sets    map[*set]struct{} // that ask for it
	classes map[*class]struct{}
	block   *policy.Peer // nil for a group
}

// atomKey is a group, or the text of a CIDR and its sorted excepts.
type atomKey struct {
	group policy.GroupKey
	block string
}

// A node is a prefix that atoms begin at, or end at.
type node struct {
	adds    []*atom // sorted by id
	excepts []*atom // blocks that do not cover this part of theirs
	full    []*atom // the atoms of an address whose longest prefix this is; sorted by id
	class   *class  // of full; nil before the first reclassify
}

// A class is a set of atoms that some prefix has.
type class struct {
	id    ClassID
	key   string
	atoms []*atom
	refs  int // nodes
	rows  map[*set]struct{}
	dead  uint64 // round in which refs became 0
}

func keyOf(p *policy.Peer) atomKey {
	if !p.CIDR.IsValid() {
		return atomKey{group: p.Group}
	}
	excepts := slices.Clone(p.Except)
	slices.SortFunc(excepts, netip.Prefix.Compare)
	var b strings.Builder
	b.WriteString(p.CIDR.Masked().String())
	for _, e := range slices.Compact(excepts) {
		b.WriteByte('!')
		b.WriteString(e.Masked().String())
	}
	return atomKey{block: b.String()}
}

// acquire returns the atom of a peer; a new one is marked at every prefix where it begins or ends.
func (c *Compiler) acquire(p *policy.Peer) *atom {
	key := keyOf(p)
	if a := c.atoms[key]; a != nil {
		return a
	}
	c.next.atom++
	a := &atom{id: c.next.atom, key: key, sets: map[*set]struct{}{}, classes: map[*class]struct{}{}}
	c.atoms[key] = a
	if p.CIDR.IsValid() {
		a.block = p
	}
	c.eachMark(a, c.mark, c.markExcept)
	return a
}

func (c *Compiler) releaseAtom(a *atom) {
	delete(c.atoms, a.key)
	c.eachMark(a, c.unmark, c.unmarkExcept)
}

func (c *Compiler) eachMark(a *atom, begin, end func(netip.Prefix, *atom)) {
	if a.block == nil {
		for p := range c.members[a.key.group] {
			begin(p, a)
		}
		return
	}
	begin(a.block.CIDR.Masked(), a)
	seen := map[netip.Prefix]bool{}
	for _, e := range a.block.Except {
		if e = e.Masked(); !seen[e] {
			seen[e] = true
			end(e, a)
		}
	}
}

func (c *Compiler) mark(p netip.Prefix, a *atom) { n := c.node(p); n.adds = insert(n.adds, a) }
func (c *Compiler) markExcept(p netip.Prefix, a *atom) {
	n := c.node(p)
	n.excepts = insert(n.excepts, a)
}
func (c *Compiler) unmark(p netip.Prefix, a *atom) { n := c.node(p); n.adds = remove(n.adds, a) }
func (c *Compiler) unmarkExcept(p netip.Prefix, a *atom) {
	n := c.node(p)
	n.excepts = remove(n.excepts, a)
}

// node returns the node of a prefix, which is about to change.
func (c *Compiler) node(p netip.Prefix) *node {
	if p.IsSingleIP() {
		c.dirty.hosts[p.Addr()] = struct{}{}
		n := c.hosts[p.Addr()]
		if n == nil {
			n = &node{}
			c.hosts[p.Addr()] = n
		}
		return n
	}
	c.dirty.nets[p] = struct{}{}
	n, ok := c.nets.Get(p)
	if !ok {
		n = &node{}
		c.nets.Insert(p, n)
	}
	return n
}

// reclassify finds the class of every prefix whose atoms may have changed, and writes those that did.
func (c *Compiler) reclassify() {
	// Shorter prefixes first: what is inside them follows from them.
	byLength := slices.SortedFunc(maps.Keys(c.dirty.nets), func(a, b netip.Prefix) int { return cmp.Compare(a.Bits(), b.Bits()) })
	var changed bart.Lite
	var gone []netip.Prefix
	for _, p := range byLength {
		changed.Insert(p)
		if n, _ := c.nets.Get(p); n.unmarked() {
			c.nets.Delete(p)
			c.unrefClass(n.class)
			gone = append(gone, p)
		}
	}
	for _, p := range byLength {
		for q, n := range c.nets.Subnets(p) {
			c.reclassifyNet(q, n)
		}
	}
	if len(byLength) > 0 {
		for addr := range c.hosts {
			if changed.Contains(addr) {
				c.dirty.hosts[addr] = struct{}{}
			}
		}
	}
	slices.SortFunc(c.changes.Networks, func(a, b Write[netip.Prefix, ClassID]) int { return cmp.Compare(b.Key.Bits(), a.Key.Bits()) })
	for _, p := range gone {
		c.changes.Narrowed.Everything = true
		if _, ok := c.maps.Networks[p]; ok {
			delete(c.maps.Networks, p)
			c.changes.Networks = append(c.changes.Networks, Write[netip.Prefix, ClassID]{Key: p, Delete: true})
		}
	}
	for addr := range c.dirty.hosts {
		c.reclassifyHost(addr)
	}
}

func (n *node) unmarked() bool { return len(n.adds)+len(n.excepts) == 0 }

func (c *Compiler) reclassifyNet(p netip.Prefix, n *node) {
	var parent *node
	for q, m := range c.nets.Supernets(p) {
		if q != p {
			parent = m
			break
		}
	}
	if c.classify(n, parent) {
		c.changes.Narrowed.Everything = true
	}
	if id, ok := c.maps.Networks[p]; !ok || id != n.class.id {
		c.maps.Networks[p] = n.class.id
		c.changes.Networks = append(c.changes.Networks, Write[netip.Prefix, ClassID]{Key: p, Value: n.class.id})
	}
}

func (c *Compiler) reclassifyHost(addr netip.Addr) {
	n := c.hosts[addr]
	if n.unmarked() {
		c.narrow(addr)
		delete(c.hosts, addr)
		c.unrefClass(n.class)
		if _, ok := c.maps.Addresses[addr]; ok {
			delete(c.maps.Addresses, addr)
			c.changes.GoneAddresses = append(c.changes.GoneAddresses, addr)
		}
		return
	}
	parent, _ := c.nets.Lookup(addr)
	if c.classify(n, parent) {
		c.narrow(addr)
	}
	if id, ok := c.maps.Addresses[addr]; !ok || id != n.class.id {
		c.maps.Addresses[addr] = n.class.id
		c.changes.Addresses = append(c.changes.Addresses, Write[netip.Addr, ClassID]{Key: addr, Value: n.class.id})
	}
}

// narrow notes that flows of an address may have lost what allowed them.
func (c *Compiler) narrow(addr netip.Addr) {
	c.changes.Narrowed.Addresses = append(c.changes.Narrowed.Addresses, addr)
}

// classify finds a node's atoms from those of the next shorter prefix, and its class. It reports whether the change can refuse what
// was allowed: a lost atom does, and where there are rules that deny so does one more.
func (c *Compiler) classify(n, parent *node) bool {
	full := n.adds
	if parent != nil && len(parent.full) > 0 {
		full = make([]*atom, 0, len(parent.full)+len(n.adds))
		full = append(append(full, parent.full...), n.adds...)
		slices.SortFunc(full, byID)
		full = slices.Compact(full)
	}
	if len(n.excepts) > 0 {
		kept := make([]*atom, 0, len(full))
		for _, a := range full {
			if _, out := slices.BinarySearchFunc(n.excepts, a, byID); !out {
				kept = append(kept, a)
			}
		}
		full = kept
	}
	n.full = full
	was := n.class
	n.class = c.class(full)
	n.class.refs++
	c.unrefClass(was)
	if was == n.class {
		return false
	}
	if c.denying > 0 {
		return true
	}
	return was != nil && slices.ContainsFunc(was.atoms, func(a *atom) bool {
		_, kept := slices.BinarySearchFunc(full, a, byID)
		return !kept
	})
}

func (c *Compiler) unrefClass(cl *class) {
	if cl == nil {
		return
	}
	if cl.refs--; cl.refs == 0 {
		cl.dead = c.round
	}
}

// class returns the class of some atoms; a new one gets its rows.
func (c *Compiler) class(atoms []*atom) *class {
	key := make([]byte, 0, 4*len(atoms))
	for _, a := range atoms {
		key = binary.BigEndian.AppendUint32(key, a.id)
	}
	if cl := c.classes[string(key)]; cl != nil {
		return cl
	}
	cl := &class{key: string(key), atoms: slices.Clone(atoms), rows: map[*set]struct{}{}}
	c.classes[cl.key] = cl
	if len(atoms) > 0 { // no atoms: class 0, which every set answers without being asked
		c.next.class++
		cl.id = ClassID(c.next.class)
	}
	for _, a := range atoms {
		a.classes[cl] = struct{}{}
		for s := range a.sets {
			c.addRow(s, cl)
		}
	}
	return cl
}

func byID(a, b *atom) int { return cmp.Compare(a.id, b.id) }

// insert and remove make new slices: full may share the old one.
func insert(atoms []*atom, a *atom) []*atom {
	i, found := slices.BinarySearchFunc(atoms, a, byID)
	if found {
		return atoms
	}
	return slices.Insert(slices.Clone(atoms), i, a)
}

func remove(atoms []*atom, a *atom) []*atom {
	i, found := slices.BinarySearchFunc(atoms, a, byID)
	if !found {
		return atoms
	}
	return slices.Delete(slices.Clone(atoms), i, i+1)
}
