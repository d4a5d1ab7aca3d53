package compiler

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// An atom is something that addresses belong to or not, and that a live set asks for: a group, or a CIDR less its excepts.
type atom struct {
	key   atomKey
	sets  map[*set]struct{} // that ask for it
	block *policy.Peer      // nil for a group
	leaf  *atoms

	backlog *backlog // that its addresses' classes wait for; nil or empty for none
}

// atoms is a set of atoms, by the numbers that they have in their forest.
type atoms = tree[atomsData]

type atomsData struct {
	atom  *atom  // of a leaf
	class *class // of exactly these atoms, where there is one
}

// atomKey is a group, or the text of a CIDR and its sorted excepts.
type atomKey struct {
	group policy.GroupKey
	block string
}

// A node is a prefix that atoms begin at, or end at.
type node struct {
	adds    *atoms
	excepts *atoms // blocks that do not cover this part of theirs
	class   *class // nil before the first reclassify
}

// A class is a set of atoms that some prefix has.
type class struct {
	id    ClassID
	atoms *atoms
	base  *class // of the prefix around the first that had this class: it differs in few atoms
	refs  int    // nodes
	rows  map[*set]struct{}
	dead  uint64 // round in which refs became 0
}

func keyOf(p *policy.Peer) atomKey {
	if !p.CIDR.IsValid() {
		return atomKey{group: p.Group}
	}
	if len(p.Except) == 0 {
		return atomKey{block: p.CIDR.Masked().String()}
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

// acquire returns the atom of a peer; a new one is marked at every prefix where it begins or ends. The classes that change by that wait in
// the backlog, where there is one.
func (c *Compiler) acquire(p *policy.Peer, later *backlog) *atom {
	key := keyOf(p)
	if a := c.atoms[key]; a != nil {
		return a
	}
	key.group = policy.GroupKey{Namespace: strings.Clone(key.group.Namespace), Name: strings.Clone(key.group.Name)} // parts of a policy, which ends before
	c.next.atom++
	a := &atom{key: key, sets: map[*set]struct{}{}, backlog: later}
	c.forest.replace(&a.leaf, c.forest.leaf(c.next.atom))
	a.leaf.data.atom = a
	c.atoms[key] = a
	if p.CIDR.IsValid() {
		a.block = p
	}
	c.later = later
	c.eachMark(a, c.mark, c.markExcept)
	c.later = nil
	return a
}

func (c *Compiler) releaseAtom(a *atom) {
	delete(c.atoms, a.key)
	c.later = &c.released
	c.eachMark(a, c.unmark, c.unmarkExcept)
	c.later = nil
	c.forest.replace(&a.leaf, nil)
}

func (c *Compiler) eachMark(a *atom, begin, end func(netip.Prefix, *atom)) {
	if a.block == nil {
		for p := range c.members[a.key.group] {
			begin(p, a)
		}
		return
	}
	begin(a.block.CIDR.Masked(), a)
	for _, e := range a.block.Except {
		end(e.Masked(), a)
	}
}

func (c *Compiler) mark(p netip.Prefix, a *atom) {
	n := c.node(p)
	c.forest.replace(&n.adds, c.forest.union(n.adds, a.leaf))
}

func (c *Compiler) markExcept(p netip.Prefix, a *atom) {
	n := c.node(p)
	c.forest.replace(&n.excepts, c.forest.union(n.excepts, a.leaf))
}

func (c *Compiler) unmark(p netip.Prefix, a *atom) {
	n := c.node(p)
	c.forest.replace(&n.adds, c.forest.difference(n.adds, a.leaf))
}

func (c *Compiler) unmarkExcept(p netip.Prefix, a *atom) {
	n := c.node(p)
	c.forest.replace(&n.excepts, c.forest.difference(n.excepts, a.leaf))
}

// node returns the node of a prefix, which is about to change.
func (c *Compiler) node(p netip.Prefix) *node {
	c.work++
	if c.later != nil {
		c.later.marks.add(p)
	} else {
		c.dirty.prefixSet.add(p)
	}
	if p.IsSingleIP() {
		n := c.hosts[p.Addr()]
		if n == nil {
			n = &node{}
			c.hosts[p.Addr()] = n
		}
		return n
	}
	n, ok := c.nets.Get(p)
	if !ok {
		n = &node{}
		c.nets.Insert(p, n)
	}
	return n
}

// reclassify finds the class of every prefix whose atoms may have changed, and writes those that did.
func (c *Compiler) reclassify() {
	if c.dirty.prefixSet.len() == 0 {
		return
	}
	var gone []netip.Prefix
	for p := range c.dirty.nets {
		if n, ok := c.nets.Get(p); ok && n.unmarked() {
			c.nets.Delete(p)
			c.unrefClass(n.class)
			gone = append(gone, p)
		}
	}
	if len(c.dirty.nets) > 0 && !c.reclassifyNets() {
		return
	}
	for _, p := range gone {
		c.removeNet(p)
	}
	for addr := range c.dirty.hosts {
		if c.exhausted() {
			return
		}
		if _, ok := c.hosts[addr]; ok {
			c.reclassifyHost(addr)
		}
	}
	c.dirty.prefixSet.reset()
}

// reclassifyNets does this for the networks within the dirty ones, and makes the hosts in them dirty. It reports whether the budget
// allowed for it.
func (c *Compiler) reclassifyNets() bool {
	changed, outermost := cover(c.dirty.nets)
	for _, p := range outermost {
		for q, n := range c.nets.Subnets(p) { // shorter prefixes first: the classes inside them follow from theirs
			if c.exhausted() {
				return false
			}
			c.reclassifyNet(q, n)
		}
	}
	for addr := range c.hosts {
		if changed.Contains(addr) {
			c.dirty.hosts[addr] = struct{}{}
		}
	}
	slices.SortFunc(c.changes.Networks, func(a, b Write[netip.Prefix, ClassID]) int { return cmp.Compare(b.Key.Bits(), a.Key.Bits()) })
	return true
}

// removeNet takes a network out of the maps.
func (c *Compiler) removeNet(p netip.Prefix) {
	c.changes.Narrowed.Everything = true
	if _, ok := c.maps.Networks[p]; ok {
		delete(c.maps.Networks, p)
		c.changes.Networks = append(c.changes.Networks, Write[netip.Prefix, ClassID]{Key: p, Delete: true})
	}
}

func (n *node) unmarked() bool { return n.adds == nil && n.excepts == nil }

func (c *Compiler) reclassifyNet(p netip.Prefix, n *node) {
	if c.classify(n, c.around(p)) {
		c.changes.Narrowed.Everything = true
	}
	if id, ok := c.maps.Networks[p]; !ok || id != n.class.id {
		c.maps.Networks[p] = n.class.id
		c.changes.Networks = append(c.changes.Networks, Write[netip.Prefix, ClassID]{Key: p, Value: n.class.id})
	}
}

// around returns the class of the smallest network around a prefix that has one.
func (c *Compiler) around(p netip.Prefix) *class {
	for q, m := range c.nets.Supernets(p) {
		if q != p && m.class != nil {
			return m.class
		}
	}
	return c.none
}

// aroundHost is around for a host, where the smallest network nearly always has a class.
func (c *Compiler) aroundHost(addr netip.Addr) *class {
	n, ok := c.nets.Lookup(addr)
	switch {
	case !ok:
		return c.none
	case n.class != nil:
		return n.class
	}
	return c.around(netip.PrefixFrom(addr, addr.BitLen()))
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
	if c.classify(n, c.aroundHost(addr)) {
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

// classify finds a node's class from that of the network around it. It reports whether the change can deny what was
// allowed: losing an atom can, and where there are rules that deny so can gaining one.
func (c *Compiler) classify(n *node, base *class) bool {
	c.work++
	all := c.forest.union(base.atoms, n.adds)
	left := c.forest.difference(all, n.excepts)
	was := n.class
	n.class = c.class(left, base, n)
	n.class.refs++
	if all != left {
		c.forest.discard(all)
	}
	c.unrefClass(was)
	if was == n.class {
		return false
	}
	return c.denying > 0 || was != nil && !was.atoms.within(left)
}

func (c *Compiler) unrefClass(cl *class) {
	if cl == nil {
		return
	}
	if cl.refs--; cl.refs == 0 {
		cl.dead = c.round
	}
}

// class returns the class of some atoms, which a node has that differs from base by its marks. A new one gets its rows.
func (c *Compiler) class(of *atoms, base *class, n *node) *class {
	if of == nil {
		return c.none
	}
	if of.data.class != nil {
		return of.data.class
	}
	c.next.class++
	cl := &class{id: ClassID(c.next.class), base: base, rows: map[*set]struct{}{}}
	c.forest.replace(&cl.atoms, of)
	of.data.class = cl
	c.classes[cl.id] = cl

	differ := map[*set]struct{}{} // the sets that may have another row for this class than for base
	note := func(leaf *atoms) {
		for s := range leaf.data.atom.sets {
			differ[s] = struct{}{}
		}
		c.work++
	}
	n.adds.each(note)
	n.excepts.each(note)
	maps.Copy(differ, c.unfinished) // whose rows for base may be among those that they lack
	for s := range differ {
		c.addRow(s, cl)
	}
	if base == c.none {
		return cl
	}
	if c.cause != "" {
		c.grow(c.cause, Usage{Rows: len(base.rows)})
	}
	for s := range base.rows {
		if _, ok := differ[s]; !ok {
			c.putRow(s, cl, c.maps.Rows[RowKey{s.id, base.id}])
		}
	}
	return cl
}
