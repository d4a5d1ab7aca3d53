package main

import (
	"fmt"
	"net/netip"
)

// Every cluster uses the same addresses: each lives in network namespaces of its own.
const (
	serviceCIDRs = "10.96.0.0/16,fd96::/112"
	podCIDRs     = "10.244.0.0/16,fd44::/48"
	dnsAddress   = "10.96.0.10" // kept for a cluster DNS; nothing answers there by default
	apiPort      = 6443
)

var (
	controlPlane4 = netip.MustParsePrefix("172.30.0.10/24")
	controlPlane6 = netip.MustParsePrefix("fd30::10/64")

	// apiServiceAddresses are the first addresses of the Service ranges, which
	// the API server takes for the Service default/kubernetes.
	apiServiceAddresses = []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")}
)

// address4 is the node's IPv4 address with the length of the LAN's prefix; node 1 has 172.30.0.11/24.
func (n node) address4() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, 0, byte(10 + n.index)}), 24)
}

// address6 spells the last digits as address4 does: node 1 has fd30::11/64.
func (n node) address6() netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd30::%d/64", 10+n.index))
}

func (n node) podCIDR4() netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(n.index), 0}), 24)
}

func (n node) podCIDR6() netip.Prefix {
	return netip.MustParsePrefix(fmt.Sprintf("fd44:0:0:%d::/64", n.index))
}
