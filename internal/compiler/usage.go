package compiler

import (
	"cmp"
	"maps"
	"slices"
)

// Usage charges each entry of the maps to the namespace that causes it; "" stands for the cluster's policies. It walks over all
// of them: call it now and then.
//
// An address or network is charged to the namespace with the oldest policies that ask for a group or block of it. Port lists,
// and the rows that name them, are charged to the namespace of the policies that they come from. But where the groups and blocks
// of other namespaces split a class, so that policies get several rows for addresses which they do not tell apart, only
// one of these rows is theirs, and the others are charged to the namespace that split last.
func (c *Compiler) Usage() map[string]Usage {
	out := map[string]Usage{}
	for s, charge := range c.charges() {
		namespace := ""
		if s != nil {
			namespace = s.namespace
		}
		out[namespace] = out[namespace].plus(charge)
	}
	return out
}

// charges are the entries that each set causes, as Usage describes it; nil stands for those that no set causes any more.
func (c *Compiler) charges() map[*set]Usage {
	u := usage{}
	for _, n := range c.hosts {
		u.add(askedFirst(n), Usage{Addresses: 1})
	}
	for _, n := range c.nets.All() {
		u.add(askedFirst(n), Usage{Networks: 1})
	}
	byNamespace := map[string][]*set{}
	for _, s := range slices.SortedFunc(maps.Values(c.sets), compareAge) {
		byNamespace[s.namespace] = append(byNamespace[s.namespace], s)
	}
	charged := map[PortListID]bool{0: true}
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		own := ownership{usage: u, namespace: namespace, memo: map[*atoms]owned{}}
		for _, s := range byNamespace[namespace] {
			own.rows(s)
			u.add(s, Usage{Rows: len(s.nameRows)})
			charge := func(key RowKey) {
				list := c.maps.Rows[key].PortList
				if !charged[list] {
					charged[list] = true
					u.add(s, Usage{Ports: len(c.byPortList[list].entries)})
				}
			}
			for cl := range s.rows {
				charge(RowKey{s.id, cl.id})
			}
			for _, key := range s.nameRows {
				charge(key)
			}
		}
	}
	for id, list := range c.byPortList { // lists that no row names any more, until they are collected
		if !charged[id] {
			u.add(nil, Usage{Ports: len(list.entries)})
		}
	}
	return u
}

// compareAge orders sets from the oldest on. What it says does not depend on when the compiler received them.
func compareAge(a, b *set) int {
	return cmp.Or(cmp.Compare(a.created, b.created), cmp.Compare(a.key, b.key))
}

// usage is the charges of sets.
type usage map[*set]Usage

func (u usage) add(s *set, more Usage) { u[s] = u[s].plus(more) }

// askedFirst is the set that a node's entry is charged to.
func askedFirst(n *node) *set {
	x := n.adds
	if x == nil {
		x = n.excepts
	}
	if x == nil {
		return nil
	}
	for !x.isLeaf() {
		x = x.l
	}
	return asker(x.data.atom)
}

// asker is the oldest set that asks for an atom.
func asker(a *atom) *set {
	var first *set
	for s := range a.sets {
		if first == nil || compareAge(s, first) < 0 {
			first = s
		}
	}
	return first
}

// ownership tells the atoms that one namespace asks for from those that only others do.
type ownership struct {
	usage
	namespace string
	memo      map[*atoms]owned
}

// owned is what a namespace has of some atoms: a sum of its own that is the same for the same ones, and the last of the others.
type owned struct {
	sum   uint64
	other *atom
}

func (o *ownership) of(x *atoms) owned {
	if x == nil {
		return owned{}
	}
	if out, ok := o.memo[x]; ok {
		return out
	}
	var out owned
	if x.isLeaf() {
		out.other = x.data.atom
		for s := range x.data.atom.sets {
			if s.namespace == o.namespace {
				out = owned{sum: scatter(uint64(x.prefix))}
				break
			}
		}
	} else {
		l, r := o.of(x.l), o.of(x.r)
		out = owned{l.sum + r.sum, cmp.Or(r.other, l.other)}
	}
	o.memo[x] = out
	return out
}

// rows charges the rows of a set.
func (o *ownership) rows(s *set) {
	classes := slices.SortedFunc(maps.Keys(s.rows), func(a, b *class) int {
		byOthers := func(cl *class) int {
			if o.of(cl.atoms).other != nil {
				return 1
			}
			return 0
		}
		return cmp.Or(cmp.Compare(byOthers(a), byOthers(b)), cmp.Compare(a.id, b.id))
	})
	seen := map[uint64]bool{}
	for _, cl := range classes {
		own := o.of(cl.atoms)
		cause := s
		if seen[own.sum] && own.other != nil {
			cause = asker(own.other)
		}
		seen[own.sum] = true
		o.add(cause, Usage{Rows: 1})
	}
}

// scatter makes a number one whose sums with others rarely meet (the finalizer of SplitMix64).
func scatter(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
