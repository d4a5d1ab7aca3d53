package ui

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// snapshot is a cluster at one time, with all that the map shows of it.
type snapshot struct {
	cluster  *model.Cluster
	nodes    []node
	byID     map[string]int
	byObject map[model.Workload]int
	graph    *Graph
}

// node of the map: a workload, or a place outside the cluster.
type node struct {
	id       string
	workload model.Workload // an Address, of what is outside
	// domainName of what is outside, which has no address.
	domainName string
	pods       int
	isolated   [2]model.Verdict // by policy.Direction
}

const outsidePrefix = "outside:"

// internet is what is in no block that a policy names.
const internet = outsidePrefix + "internet"

func newSnapshot(c *model.Cluster) *snapshot {
	s := &snapshot{cluster: c, byID: map[string]int{}, byObject: map[model.Workload]int{}}
	pods := map[model.Workload]int{}
	for i := range c.Pods {
		if policy.IsPeer(&c.Pods[i].Pod) {
			pods[c.Pods[i].Workload]++
		}
	}
	outside := outsideOf(c)
	reach := model.NewReach(c, slices.Collect(maps.Keys(outside))...)
	name := model.Names(c.Workloads())
	for _, w := range reach.Workloads() {
		n := node{id: name(w), workload: w, pods: pods[w], isolated: reach.Isolated(w)}
		if w.Kind == "Address" {
			n.id = outside[netip.MustParseAddr(w.Name)]
		}
		s.add(n)
	}
	named := model.NewEvaluator(c).NamesByWorkload()
	for _, domain := range namesOf(named) {
		s.add(node{id: outsidePrefix + domain, workload: model.Workload{Kind: "DomainName", Name: domain}, domainName: domain})
	}
	s.graph = s.newGraph(named)
	return s
}

func (s *snapshot) add(n node) {
	s.byID[n.id], s.byObject[n.workload] = len(s.nodes), len(s.nodes)
	s.nodes = append(s.nodes, n)
}

// namesOf all workloads, in order.
func namesOf(named map[model.Workload]map[string]model.PortSet) []string {
	all := map[string]bool{}
	for _, names := range named {
		for n := range names {
			all[n] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// outsideOf a cluster are an address for each block that policies name, and one for what is in none of them, with their IDs.
func outsideOf(c *model.Cluster) map[netip.Addr]string {
	e := model.NewEvaluator(c)
	out := map[netip.Addr]string{}
	prefixes := blocks(c)
	for _, addr := range c.Blocks() {
		if !c.HasFamily(addr) || e.PodAt(addr) != nil {
			continue
		}
		for _, p := range prefixes { // widest first: the narrowest that begins here names it
			if first := p.Masked().Addr(); p.IsSingleIP() && first == addr || !p.IsSingleIP() && first.Next() == addr {
				out[addr] = outsideID(p)
			}
		}
	}
	for _, is4 := range []bool{true, false} {
		if addr := model.PlaceholderOf(is4); c.HasFamily(addr) && !c.AssumesIPv6(addr) {
			if out[addr] = internet; !is4 && len(out) > 0 && c.Addressing.IPv4 {
				out[addr] = internet + " (IPv6)"
			}
		}
	}
	return out
}

// outsideID of a block; a block of one address is called by the address.
func outsideID(p netip.Prefix) string {
	if p.IsSingleIP() {
		return outsidePrefix + p.Addr().String()
	}
	return outsidePrefix + p.Masked().String()
}

// blocks that policies name, excepts included, the widest first.
func blocks(c *model.Cluster) []netip.Prefix {
	found := map[netip.Prefix]bool{}
	c.EachBlock(func(cidr string) {
		if p, err := netip.ParsePrefix(cidr); err == nil {
			found[p.Masked()] = true
		}
	})
	return slices.SortedFunc(maps.Keys(found), func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
}
