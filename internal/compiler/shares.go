package compiler

import (
	"cmp"
	"slices"
)

// Usage is a number of entries of each map.
type Usage struct{ Addresses, Networks, Rows, Ports int }

func (u Usage) plus(v Usage) Usage {
	return Usage{u.Addresses + v.Addresses, u.Networks + v.Networks, u.Rows + v.Rows, u.Ports + v.Ports}
}

func (u Usage) minus(v Usage) Usage {
	return Usage{u.Addresses - v.Addresses, u.Networks - v.Networks, u.Rows - v.Rows, u.Ports - v.Ports}
}

// within reports whether there is no more of any map than limit has.
func (u Usage) within(limit Usage) bool {
	return u.Addresses <= limit.Addresses && u.Networks <= limit.Networks && u.Rows <= limit.Rows && u.Ports <= limit.Ports
}

// part is one of n equal parts.
func (u Usage) part(n int) Usage {
	return Usage{u.Addresses / n, u.Networks / n, u.Rows / n, u.Ports / n}
}

// less is what a part of n leaves.
func (u Usage) less(n int) Usage {
	part := u.part(n)
	return Usage{u.Addresses - part.Addresses, u.Networks - part.Networks, u.Rows - part.Rows, u.Ports - part.Ports}
}

// DefaultNamespaces is how many namespaces have a guaranteed share of the maps. More than a node has pods in most clusters.
const DefaultNamespaces = 256

// reserved is the part of the maps that only namespaces within their shares may take: what is removed to make room for them
// leaves the maps some seconds later.
const reserved = 8

// A demand is the entries that one set wants to have in the maps.
type demand struct {
	namespace string // of its policies
	created   int64
	key       string // decides between those created at the same time
	cost      Usage
	// fixed are entries that cannot be given up: those of the cluster's policies, and of sets that are not complete yet.
	fixed bool
}

// admit returns which demands fit into the maps. First come those within the shares of their namespaces, each of which is
// guaranteed one of this many parts of the maps, then the oldest among the rest. So the newest growth is what does not fit, and
// demands of a namespace within its share never depend on those of others. The result depends on nothing but the arguments, and
// not on the order of the demands: an agent that starts comes to what it was before. Demands beyond the shares leave spare free.
//
// A namespace's oldest demands are those within its share. What is too large for the share leaves it to younger ones.
func admit(capacity, spare Usage, namespaces int, demands []demand) []bool {
	order := make([]int, len(demands))
	used := map[string]Usage{}
	var all Usage
	out := make([]bool, len(demands))
	for i, d := range demands {
		order[i] = i
		used[d.namespace] = used[d.namespace].plus(Usage{})
		if out[i] = d.fixed; d.fixed {
			used[d.namespace] = used[d.namespace].plus(d.cost)
			all = all.plus(d.cost)
		}
	}
	slices.SortFunc(order, func(i, j int) int {
		return cmp.Or(cmp.Compare(demands[i].created, demands[j].created), cmp.Compare(demands[i].key, demands[j].key))
	})
	share := capacity.part(max(namespaces, len(used), 1))
	fit := func(i int, own, total Usage) {
		d := &demands[i]
		if out[i] || !used[d.namespace].plus(d.cost).within(own) || !all.plus(d.cost).within(total) {
			return
		}
		out[i] = true
		used[d.namespace] = used[d.namespace].plus(d.cost)
		all = all.plus(d.cost)
	}
	for _, i := range order {
		fit(i, share, capacity)
	}
	for _, i := range order {
		fit(i, capacity, capacity.less(reserved).minus(spare))
	}
	return out
}
