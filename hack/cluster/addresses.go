package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Every cluster uses the same addresses: each lives in network namespaces of its own.
const apiPort = 6443

var (
	controlPlane4 = netip.MustParsePrefix("172.30.0.10/24")
	controlPlane6 = netip.MustParsePrefix("fd30::10/64")

	// apiServiceAddresses are the first addresses of the Service ranges, which
	// the API server takes for the Service default/kubernetes.
	apiServiceAddresses = []netip.Addr{netip.MustParseAddr("10.96.0.1"), netip.MustParseAddr("fd96::1")}
)

// The families as a Service's ipFamilies has them.
const (
	ipv4 = "IPv4"
	ipv6 = "IPv6"
)

// parseFamilies reads "IPv4", "IPv6", or both with a comma, the first preferred.
func parseFamilies(s string) ([]string, error) {
	families := strings.Split(s, ",")
	for i, f := range families {
		if f != ipv4 && f != ipv6 || slices.Contains(families[:i], f) {
			return nil, fmt.Errorf("IP families %q: want IPv4, IPv6, or both in the order of preference", s)
		}
	}
	return families, nil
}

// byFamily is what there is of each of the cluster's families, the preferred one's first.
func byFamily[T any](c *Cluster, v4, v6 T) []T { return ofFamilies(c.IPFamilies, v4, v6) }

// ofFamilies is what there is of each of some families, in their order.
func ofFamilies[T any](families []string, v4, v6 T) []T {
	var out []T
	for _, f := range families {
		out = append(out, map[string]T{ipv4: v4, ipv6: v6}[f])
	}
	return out
}

func (c *Cluster) serviceCIDRs() string {
	return strings.Join(byFamily(c, "10.96.0.0/16", "fd96::/112"), ",")
}

func (c *Cluster) podCIDRs() string {
	return strings.Join(byFamily(c, "10.244.0.0/16", "fd44::/48"), ",")
}

// dnsAddress is kept for a cluster DNS; nothing answers there by default.
func (c *Cluster) dnsAddress() string { return byFamily(c, "10.96.0.10", "fd96::a")[0] }

// controlPlaneAddress is where the nodes and the administrator reach the API server.
func (c *Cluster) controlPlaneAddress() netip.Addr {
	return byFamily(c, controlPlane4, controlPlane6)[0].Addr()
}

// addresses are the node's own, with the length of the LAN's prefix.
func (n node) addresses() []netip.Prefix { return byFamily(n.c, n.address4(), n.address6()) }

// podCIDRs are the ranges of the node's pods.
func (n node) podCIDRs() []netip.Prefix { return byFamily(n.c, n.podCIDR4(), n.podCIDR6()) }

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

// addressList is the node's addresses as the kubelet takes them.
func (n node) addressList() string {
	var list []string
	for _, a := range n.addresses() {
		list = append(list, a.Addr().String())
	}
	return strings.Join(list, ",")
}
