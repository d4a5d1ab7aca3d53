package resolver

import "net/netip"

// address is an IP address, IPv4 as IPv4-mapped IPv6. It contains no pointer, because there may be hundreds of
// thousands.
type address [16]byte

func (a address) ip() netip.Addr { return netip.AddrFrom16(a).Unmap() }

func (a address) compare(b address) int { return a.ip().Compare(b.ip()) }
