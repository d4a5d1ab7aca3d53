package compiler

import (
	"cmp"
	"maps"
	"slices"
)

// Usage is how many entries of each map a namespace causes.
type Usage struct{ Addresses, Networks, Rows, Ports int }

// Usage charges each entry of the maps to the namespace that causes it; "" stands for the cluster's policies. It walks over all
// of them: call it now and then.
//
// An address or network is charged to the namespace that first asked for a group or block of it. Port lists, and the
// rows that name them, are charged to the namespace of the policies that they come from. But where the groups and blocks
// of other namespaces split a class, so that policies get several rows for addresses which they do not tell apart, only
// one of these rows is theirs, and the others are charged to the namespace that split last.
func (c *Compiler) Usage() map[string]Usage {
	u := usage{out: map[string]Usage{}, namespaces: map[*set]string{}}
	for s := range maps.Values(c.sets) {
		u.namespaces[s] = s.namespace()
	}
	for _, n := range c.hosts {
		u.add(u.askedFirst(n), Usage{Addresses: 1})
	}
	for _, n := range c.nets.All() {
		u.add(u.askedFirst(n), Usage{Networks: 1})
	}
	byNamespace := map[string][]*set{}
	for _, s := range slices.SortedFunc(maps.Values(c.sets), func(a, b *set) int { return cmp.Compare(a.id, b.id) }) {
		byNamespace[u.namespaces[s]] = append(byNamespace[u.namespaces[s]], s)
	}
	charged := map[PortListID]bool{0: true}
	for _, namespace := range slices.Sorted(maps.Keys(byNamespace)) {
		own := ownership{usage: &u, namespace: namespace, memo: map[*atoms]owned{}}
		for _, s := range byNamespace[namespace] {
			own.rows(s)
			for cl := range s.rows {
				list := c.maps.Rows[RowKey{s.id, cl.id}].PortList
				if !charged[list] {
					charged[list] = true
					u.add(namespace, Usage{Ports: len(c.byPortList[list].entries)})
				}
			}
		}
	}
	for id, list := range c.byPortList { // lists that no row names any more, until they are collected
		if !charged[id] {
			u.add("", Usage{Ports: len(list.entries)})
		}
	}
	return u.out
}

// namespace is that of the policies of a set; a pod is under the cluster's policies and those of one namespace.
func (s *set) namespace() string {
	for _, v := range s.versions {
		if ns := v.policy.ID.Namespace; ns != "" {
			return ns
		}
	}
	return ""
}

type usage struct {
	out        map[string]Usage
	namespaces map[*set]string
}

func (u *usage) add(namespace string, more Usage) {
	sum := u.out[namespace]
	sum.Addresses += more.Addresses
	sum.Networks += more.Networks
	sum.Rows += more.Rows
	sum.Ports += more.Ports
	u.out[namespace] = sum
}

// askedFirst is the namespace that a node's entry is charged to.
func (u *usage) askedFirst(n *node) string {
	x := n.adds
	if x == nil {
		x = n.excepts
	}
	for !x.isLeaf() {
		x = x.l
	}
	return u.asker(x.data.atom)
}

// asker is the namespace of the oldest set that asks for an atom.
func (u *usage) asker(a *atom) string {
	var first *set
	for s := range a.sets {
		if first == nil || s.id < first.id {
			first = s
		}
	}
	return u.namespaces[first]
}

// ownership tells the atoms that one namespace asks for from those that only others do.
type ownership struct {
	*usage
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
			if o.namespaces[s] == o.namespace {
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
		namespace := o.namespace
		if seen[own.sum] && own.other != nil {
			namespace = o.asker(own.other)
		}
		seen[own.sum] = true
		o.add(namespace, Usage{Rows: 1})
	}
}

// scatter makes a number one whose sums with others rarely meet (the finalizer of SplitMix64).
func scatter(n uint64) uint64 {
	n += 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return n ^ n>>31
}
