package resolver

import (
	"fmt"
	"net/netip"
	"slices"
)

// uniteBlocks makes fewer of the blocks of the same rules and ports, without a change of their addresses: blocks of one CIDR
// become one, and a block inside another one is left out. It takes n log n steps.
func uniteBlocks(list []peerPorts) []peerPorts {
	blocks := map[string][]block{}
	for i := range list {
		if list[i].isBlock() {
			key := list[i].rulesAndPorts()
			blocks[key] = append(blocks[key], list[i].peer.block)
		}
	}
	out := make([]peerPorts, 0, len(list))
	for _, p := range list {
		if !p.isBlock() {
			out = append(out, p)
			continue
		}
		key := p.rulesAndPorts()
		for _, b := range unite(blocks[key]) {
			p.peer.block = b
			out = append(out, p)
		}
		delete(blocks, key)
	}
	return out
}

func (p *peerPorts) isBlock() bool {
	return !p.peer.everyone && p.peer.pods == nil && p.peer.names == nil
}

// rulesAndPorts is equal for peers of the same rules with the same ports.
func (p *peerPorts) rulesAndPorts() string {
	return fmt.Sprint(p.origins, p.ports.everything, p.ports.ranges)
}

// unite returns fewer blocks with the same addresses, sorted.
func unite(blocks []block) (out []block) {
	slices.SortFunc(blocks, func(a, b block) int { return comparePrefixes(a.cidr, b.cidr) })
	var around []block // the blocks of out that contain the last one, the smallest last
	for len(blocks) > 0 {
		n := 1
		for n < len(blocks) && blocks[n].cidr == blocks[0].cidr {
			n++
		}
		b := block{blocks[0].cidr, exceptedByAll(blocks[:n])}
		blocks = blocks[n:]
		for len(around) > 0 && !contains(around[len(around)-1].cidr, b.cidr) {
			around = around[:len(around)-1]
		}
		if slices.Contains(b.except, b.cidr) || slices.ContainsFunc(around, func(o block) bool { return !o.exceptsSome(b.cidr) }) {
			continue
		}
		out = append(out, b)
		around = append(around, b)
	}
	return out
}

// exceptedByAll returns the addresses that no block of the same CIDR has.
func exceptedByAll(blocks []block) []netip.Prefix {
	if len(blocks) == 1 {
		return blocks[0].except
	}
	half := len(blocks) / 2
	return intersect(exceptedByAll(blocks[:half]), exceptedByAll(blocks[half:]))
}

// intersect returns the addresses in both of two sets. Like excepts, sets are sorted, and no prefix is inside another.
func intersect(a, b []netip.Prefix) (out []netip.Prefix) {
	for len(a) > 0 && len(b) > 0 {
		switch {
		case contains(a[0], b[0]):
			out, b = append(out, b[0]), b[1:]
		case contains(b[0], a[0]):
			out, a = append(out, a[0]), a[1:]
		case a[0].Addr().Less(b[0].Addr()):
			a = a[1:]
		default:
			b = b[1:]
		}
	}
	return out
}

// exceptsSome reports whether the block lacks an address of a CIDR inside it.
func (b *block) exceptsSome(cidr netip.Prefix) bool {
	i, found := slices.BinarySearchFunc(b.except, cidr, comparePrefixes)
	return found || i > 0 && contains(b.except[i-1], cidr) || i < len(b.except) && contains(cidr, b.except[i])
}
