// Package bpf has the BPF program, its maps and their types: generated from the C beside it, with their byte orders.
package bpf

import (
	"encoding/binary"
	"net/netip"
)

// EncodeAddress turns an address into a struct address: an IPv4 address into the IPv6 address that is mapped to it.
func EncodeAddress(a netip.Addr) FilterAddress {
	b := a.As16()
	var out FilterAddress
	for i := range out.Word {
		out.Word[i] = binary.NativeEndian.Uint32(b[4*i:])
	}
	return out
}

// Decode is the opposite of EncodeAddress.
func (a FilterAddress) Decode() netip.Addr {
	var b [16]byte
	for i, w := range a.Word {
		binary.NativeEndian.PutUint32(b[4*i:], w)
	}
	return netip.AddrFrom16(b).Unmap()
}
