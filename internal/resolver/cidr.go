package resolver

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	netutils "k8s.io/utils/net"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// block is an ipBlock in canonical form: masked, with sorted excepts inside it, none of them inside another.
type block struct {
	cidr   netip.Prefix
	except []netip.Prefix
}

func parseBlock(b *networkingv1.IPBlock) (block, error) {
	cidr, err := parsePrefix(b.CIDR)
	if err != nil {
		return block{}, err
	}
	out := block{cidr: cidr}
	for _, s := range b.Except {
		e, err := parsePrefix(s)
		if err != nil {
			return block{}, err
		}
		if !contains(cidr, e) {
			return block{}, fmt.Errorf("except %s is not inside cidr %s", s, b.CIDR)
		}
		out.except = append(out.except, e)
	}
	slices.SortFunc(out.except, comparePrefixes)
	kept := out.except[:0]
	for _, e := range out.except { // sorted: a block comes before the blocks inside it
		if len(kept) == 0 || !contains(kept[len(kept)-1], e) {
			kept = append(kept, e)
		}
	}
	out.except = kept
	return out, nil
}

// parsePrefix reads a CIDR as the API server does, which accepts leading zeros and host bits in old objects.
func parsePrefix(s string) (netip.Prefix, error) {
	_, n, err := netutils.ParseCIDRSloppy(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a valid CIDR", s)
	}
	addr, _ := netip.AddrFromSlice(n.IP)
	addr = addr.Unmap()
	ones, bits := n.Mask.Size()
	ones -= bits - addr.BitLen() // an IPv4 block written as IPv6 has 96 more bits
	return netip.PrefixFrom(addr, max(ones, 0)).Masked(), nil
}

func contains(outer, inner netip.Prefix) bool {
	return outer.Bits() <= inner.Bits() && outer.Contains(inner.Addr())
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// key is equal for two blocks if and only if their canonical forms are.
func (b block) key() string {
	var s strings.Builder
	s.WriteString(b.cidr.String())
	for _, e := range b.except {
		s.WriteByte(' ')
		s.WriteString(e.String())
	}
	return s.String()
}

// keys contains the block's key; it is empty for no block.
func (b *block) keys() []string {
	if b == nil {
		return nil
	}
	return []string{b.key()}
}

// of returns the pod's addresses in the block; all of them if there is no block.
func (b *block) of(p *pod) []address {
	if b == nil {
		return p.addresses
	}
	var out []address
	for _, a := range p.addresses {
		if b.contains(a.ip()) {
			out = append(out, a)
		}
	}
	return out
}

// contains reports whether an address is in the block.
func (b *block) contains(addr netip.Addr) bool {
	return b.cidr.Contains(addr) && !slices.ContainsFunc(b.except, func(e netip.Prefix) bool { return e.Contains(addr) })
}

// peers writes the block as the API does: as one peer, or, where it has more excepts than a peer may have, as
// those of its two halves.
func (b block) peers() []v1alpha1.Peer {
	if len(b.except) <= v1alpha1.MaxExceptsPerPeer {
		p := v1alpha1.Peer{CIDR: v1alpha1.CIDR(b.cidr.String())}
		for _, e := range b.except {
			p.Except = append(p.Except, v1alpha1.CIDR(e.String()))
		}
		return []v1alpha1.Peer{p}
	}
	var out []v1alpha1.Peer
	for _, half := range halves(b.cidr) {
		h := block{cidr: half}
		for _, e := range b.except {
			if contains(half, e) {
				h.except = append(h.except, e)
			}
		}
		if !slices.Contains(h.except, half) {
			out = append(out, h.peers()...)
		}
	}
	return out
}

// halves cuts a block that holds more than one address in two.
func halves(p netip.Prefix) [2]netip.Prefix {
	bits := p.Bits() + 1
	upper := p.Addr().AsSlice()
	upper[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	addr, _ := netip.AddrFromSlice(upper)
	return [2]netip.Prefix{netip.PrefixFrom(p.Addr(), bits), netip.PrefixFrom(addr, bits)}
}
