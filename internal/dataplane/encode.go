package dataplane

import (
	"encoding/binary"
	"net/netip"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// Conversions between the keys and values of compiler.Maps and the structs of bpf/maps.h.

// mappedBits are what the keys of IPv4 have before the address: ::ffff:0:0/96.
const mappedBits = 96

// onWire reports whether an address of a packet can be a. IPv6 packets with IPv4-mapped addresses are
// dropped, so an entry for one would only be mistaken for the IPv4 address.
func onWire(a netip.Addr) bool { return !a.Is4In6() }

func encodeAddr(a netip.Addr) bpf.FilterAddress { return bpf.EncodeAddress(a) }

func decodeAddr(a bpf.FilterAddress) netip.Addr { return a.Decode() }

func encodeNetwork(p netip.Prefix) bpf.FilterNetworkKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += mappedBits
	}
	return bpf.FilterNetworkKey{Prefixlen: uint32(bits), Addr: encodeAddr(p.Addr())}
}

func decodeNetwork(k bpf.FilterNetworkKey) netip.Prefix {
	addr, bits := decodeAddr(k.Addr), int(k.Prefixlen)
	if addr.Is4() {
		if bits < mappedBits { // not of our making: an IPv6 prefix that ends inside ::ffff
			return netip.PrefixFrom(netip.AddrFrom16(addr.As16()), bits)
		}
		bits -= mappedBits
	}
	return netip.PrefixFrom(addr, bits)
}

// canonicalNetwork clears the bits behind the prefix.
func canonicalNetwork(k bpf.FilterNetworkKey) bpf.FilterNetworkKey {
	prefix, err := netip.AddrFrom16(decodeAddr(k.Addr).As16()).Prefix(int(k.Prefixlen))
	if err != nil {
		return k
	}
	k.Addr = encodeAddr(prefix.Addr())
	return k
}

func encodePod(p compiler.Pod) bpf.FilterPod {
	return bpf.FilterPod{
		Sets:    [4]uint32{uint32(p.Sets[0]), uint32(p.Sets[1]), uint32(p.AuditSets[0]), uint32(p.AuditSets[1])},
		Flags:   uint32(p.Flags),
		Ifindex: p.IfIndex,
	}
}

func decodePod(p bpf.FilterPod) compiler.Pod {
	return compiler.Pod{
		Sets:      [2]compiler.SetID{compiler.SetID(p.Sets[0]), compiler.SetID(p.Sets[1])},
		AuditSets: [2]compiler.SetID{compiler.SetID(p.Sets[2]), compiler.SetID(p.Sets[3])},
		Flags:     compiler.PodFlags(p.Flags),
		IfIndex:   p.Ifindex,
	}
}

func encodeInterface(i compiler.Interface) bpf.FilterInterface {
	return bpf.FilterInterface{Kind: uint32(i.Kind), Flags: uint32(i.Flags), Pod: i.Pod}
}

func decodeInterface(i bpf.FilterInterface) compiler.Interface {
	return compiler.Interface{Kind: compiler.InterfaceKind(i.Kind), Flags: compiler.PodFlags(i.Flags), Pod: i.Pod}
}

func encodeIndex(i uint32) uint32 { return i }

func encodeClass(c compiler.ClassID) uint32 { return uint32(c) }

func decodeClass(c uint32) compiler.ClassID { return compiler.ClassID(c) }

func encodeRowKey(k compiler.RowKey) bpf.FilterRowKey {
	return bpf.FilterRowKey{Set: uint32(k.Set), Class: uint32(k.Class)}
}

func decodeRowKey(k bpf.FilterRowKey) compiler.RowKey {
	return compiler.RowKey{Set: compiler.SetID(k.Set), Class: compiler.ClassID(k.Class)}
}

func encodeRow(r compiler.Row) bpf.FilterRow {
	return bpf.FilterRow{PortList: uint32(r.PortList), DefaultDecision: encodeDecision(r.Default)}
}

func decodeRow(r bpf.FilterRow) compiler.Row {
	return compiler.Row{PortList: compiler.PortListID(r.PortList), Default: decodeDecision(r.DefaultDecision)}
}

func encodeDecision(v compiler.Decision) bpf.FilterDecision {
	return bpf.FilterDecision{Rule: uint32(v.Rule), Action: uint8(v.Action), Tier: uint8(v.Tier), Names: v.Names}
}

func decodeDecision(v bpf.FilterDecision) compiler.Decision {
	return compiler.Decision{Action: policy.Action(v.Action), Tier: policy.Tier(v.Tier), Rule: compiler.RuleID(v.Rule), Names: v.Names}
}

// portKeyBits are the bits of a port key that always count: port list, protocol and the byte after it.
const portKeyBits = 32 + 8 + 8

func encodePort(k compiler.PortKey) bpf.FilterPortKey {
	return bpf.FilterPortKey{
		Prefixlen: portKeyBits + uint32(k.Bits),
		PortList:  uint32(k.PortList),
		Protocol:  uint8(k.Protocol),
		Port:      htons(k.Port),
	}
}

func decodePort(k bpf.FilterPortKey) compiler.PortKey {
	return compiler.PortKey{
		PortList: compiler.PortListID(k.PortList),
		Protocol: policy.Protocol(k.Protocol),
		Port:     htons(k.Port),
		Bits:     uint8(k.Prefixlen - portKeyBits),
	}
}

// canonicalPort clears the bits behind the prefix.
func canonicalPort(k bpf.FilterPortKey) bpf.FilterPortKey {
	if k.Prefixlen >= portKeyBits && k.Prefixlen <= portKeyBits+16 {
		k.Port = htons(htons(k.Port) &^ (0xffff >> (k.Prefixlen - portKeyBits)))
	}
	return k
}

// htons turns a number into network order in place, and back.
func htons(p uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], p)
	return binary.NativeEndian.Uint16(b[:])
}
