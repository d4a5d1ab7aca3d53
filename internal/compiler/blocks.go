package compiler

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// unite returns the blocks of one rule as disjoint blocks that cover the same addresses. The peers of a rule share its
// ports, so that only their union matters: 0.0.0.0/0 except a, together with 0.0.0.0/0 except b, is 0.0.0.0/0. A rule's
// blocks thus make an address a member of at most one atom, whatever the rule lists. It takes n log n steps.
//
// Blocks that are disjoint already keep their form, so that rules which list the same block share its atom.
func unite(blocks []policy.Peer) []policy.Peer {
	if len(blocks) == 0 || len(blocks) == 1 && len(blocks[0].Except) == 0 {
		return blocks
	}
	edges := edgesOf(blocks)
	// Walk the prefixes as a tree. covered says how many blocks hold the addresses of the prefix at hand.
	type level struct {
		prefix  netip.Prefix
		covered int
		block   int // in out, of the smallest one around this prefix; -1 for none
	}
	var out []policy.Peer
	stack := []level{{block: -1}}
	for _, e := range edges {
		for len(stack) > 1 && !contains(stack[len(stack)-1].prefix, e.prefix) {
			stack = stack[:len(stack)-1]
		}
		above := stack[len(stack)-1]
		here := level{prefix: e.prefix, covered: above.covered + e.change, block: above.block}
		switch {
		case above.covered == 0 && here.covered > 0:
			here.block = len(out)
			out = append(out, policy.Peer{CIDR: e.prefix})
		case above.covered > 0 && here.covered == 0:
			out[here.block].Except = append(out[here.block].Except, e.prefix)
		}
		stack = append(stack, here)
	}
	return out
}

// An edge is a prefix in which more or fewer of the blocks cover the addresses than around it.
type edge struct {
	prefix netip.Prefix
	change int
}

// edgesOf are the prefixes at which blocks begin and end, each once, a prefix before those within it.
func edgesOf(blocks []policy.Peer) []edge {
	n := 0
	for i := range blocks {
		n += 1 + len(blocks[i].Except)
	}
	edges := make([]edge, 0, n)
	for i := range blocks {
		edges = appendEdges(edges, blocks[i].CIDR.Masked(), blocks[i].Except)
	}
	slices.SortFunc(edges, func(a, b edge) int { return comparePrefixes(a.prefix, b.prefix) })
	merged := edges[:0]
	for _, e := range edges {
		if n := len(merged); n > 0 && merged[n-1].prefix == e.prefix {
			merged[n-1].change += e.change
		} else {
			merged = append(merged, e)
		}
	}
	return merged
}

// appendEdges appends those of one block. Of excepts inside each other only the outer one is an edge.
func appendEdges(edges []edge, cidr netip.Prefix, excepts []netip.Prefix) []edge {
	start := len(edges)
	for _, e := range excepts {
		e = e.Masked()
		switch {
		case contains(e, cidr): // nothing is left of the block
			return edges[:start]
		case contains(cidr, e):
			edges = append(edges, edge{e, -1})
		}
	}
	if own := edges[start:]; len(own) > 1 {
		slices.SortFunc(own, func(a, b edge) int { return comparePrefixes(a.prefix, b.prefix) })
		outer := own[:1]
		for _, e := range own[1:] {
			if !contains(outer[len(outer)-1].prefix, e.prefix) {
				outer = append(outer, e)
			}
		}
		edges = edges[:start+len(outer)]
	}
	return append(edges, edge{cidr, 1})
}

// contains reports whether all of b's addresses are a's. Both are masked.
func contains(a, b netip.Prefix) bool { return a.Bits() <= b.Bits() && a.Contains(b.Addr()) }

// comparePrefixes orders masked prefixes by address, and a prefix before those within it.
func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}
