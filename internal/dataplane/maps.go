package dataplane

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// ClosedSet is a set that has no row and never will: a pod under it is refused everything in that direction, by rule 0.
// It is for a pod whose real set could not be written.
const ClosedSet compiler.SetID = ^compiler.SetID(0)

// tables are compiler.Maps in the kernel. bpf/tables.h says what the maps are.
type tables struct {
	pods      *table[netip.Addr, compiler.Pod, bpf.FilterAddress, bpf.FilterPod]
	addresses *table[netip.Addr, compiler.ClassID, bpf.FilterAddress, uint32]
	networks  *table[netip.Prefix, compiler.ClassID, bpf.FilterNetworkKey, uint32]
	rows      *table[compiler.RowKey, compiler.Row, bpf.FilterRowKey, bpf.FilterRow]
	ports     *table[compiler.PortKey, compiler.Decision, bpf.FilterPortKey, bpf.FilterRule]

	interfaces *table[uint32, compiler.Interface, uint32, bpf.FilterInterface]
}

func newTables(m *bpf.FilterMaps) tables {
	return tables{
		pods: &table[netip.Addr, compiler.Pod, bpf.FilterAddress, bpf.FilterPod]{
			m: m.Pods, name: bpf.FilterMapPods, valid: onWire,
			encodeKey: encodeAddr, decodeKey: decodeAddr, encodeValue: encodePod,
		},
		addresses: &table[netip.Addr, compiler.ClassID, bpf.FilterAddress, uint32]{
			m: m.Addresses, name: bpf.FilterMapAddresses, valid: onWire,
			encodeKey: encodeAddr, decodeKey: decodeAddr, encodeValue: encodeClass,
		},
		networks: &table[netip.Prefix, compiler.ClassID, bpf.FilterNetworkKey, uint32]{
			m: m.Networks, name: bpf.FilterMapNetworks,
			valid: func(p netip.Prefix) bool { return onWire(p.Addr()) || p.Bits() < mappedBits },
			// Keeps the families apart: with it no IPv4 address falls through to an IPv6 prefix such as ::/0.
			standing:  map[netip.Prefix]compiler.ClassID{netip.PrefixFrom(netip.IPv4Unspecified(), 0): 0},
			encodeKey: encodeNetwork, decodeKey: decodeNetwork, encodeValue: encodeClass,
		},
		rows: &table[compiler.RowKey, compiler.Row, bpf.FilterRowKey, bpf.FilterRow]{
			m: m.Rows, name: bpf.FilterMapRows,
			encodeKey: encodeRowKey, decodeKey: decodeRowKey, encodeValue: encodeRow,
		},
		ports: &table[compiler.PortKey, compiler.Decision, bpf.FilterPortKey, bpf.FilterRule]{
			m: m.Ports, name: bpf.FilterMapPorts,
			encodeKey: encodePort, decodeKey: decodePort, encodeValue: encodeVerdict,
		},
		interfaces: &table[uint32, compiler.Interface, uint32, bpf.FilterInterface]{
			m: m.Interfaces, name: bpf.FilterMapInterfaces,
			encodeKey: encodeIndex, decodeKey: encodeIndex, encodeValue: encodeInterface,
		},
	}
}

// Usage is how full each map is. It is cheap: the numbers are kept while writing, and corrected by Sync.
func (d *Dataplane) Usage() []MapUsage {
	t := &d.tables
	return []MapUsage{t.pods.usage(), t.addresses.usage(), t.networks.usage(), t.rows.usage(), t.ports.usage(), t.interfaces.usage()}
}
