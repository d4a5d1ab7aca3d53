package main

import (
	"encoding/json"
	"errors"
	"net/netip"
)

// secondUplink is a node's second network interface (ENI). The stand-in for the IPAM daemon brings it up.
const secondUplink = "eth1"

// An eni is a network interface of a node, as the stand-in for the IPAM daemon reads it (hack/vpcenv/ipamd).
type eni struct {
	Name    string       `json:"name"`
	Address netip.Prefix `json:"address"`
	Gateway netip.Addr   `json:"gateway"`
	Pods    netip.Prefix `json:"pods"`
}

// enis are the node's. With IPv4, half of its pods have addresses of a second interface; with IPv6 the VPC CNI uses the primary one only.
func (n node) enis() []eni {
	pods := n.podCIDRs()[0]
	primary := eni{uplink, n.addresses()[0], byFamily(n.c, controlPlane4, controlPlane6)[0].Addr(), pods}
	if pods.Addr().Is6() {
		primary.Pods = netip.PrefixFrom(pods.Addr(), 80)
		return []eni{primary}
	}
	primary.Pods = netip.PrefixFrom(pods.Addr(), 25)
	bytes := pods.Addr().As4()
	bytes[3] = 128
	return []eni{primary, {
		Name:    secondUplink,
		Address: netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 30, 0, byte(110 + n.index)}), 24),
		Gateway: primary.Gateway,
		Pods:    netip.PrefixFrom(netip.AddrFrom4(bytes), 25),
	}}
}

// ipamConfig is the configuration of the stand-in for the IPAM daemon.
func (n node) ipamConfig() ([]byte, error) {
	vpc := byFamily(n.c, []string{"172.30.0.0/24", "10.244.0.0/16"}, []string{"fd30::/64", "fd44::/48"})[0]
	return json.MarshalIndent(map[string]any{"interfaces": n.enis(), "vpc": vpc, "policyMode": n.c.VPCPolicyMode}, "", "  ")
}

// routeENIs leads to the node's pods from the VPC's router: to the addresses of each interface over that interface.
func (n node) routeENIs() error {
	var err error
	for _, e := range n.enis() {
		err = errors.Join(err, addRoute(e.Pods, e.Address.Addr()))
	}
	return err
}

// setUpVPC makes the node behave as one in a VPC: each interface answers for its own addresses only.
func (n node) setUpVPC() error {
	return errors.Join(
		setSysctl("net/ipv4/conf/all/arp_ignore", "1"),
		setSysctl("net/ipv4/conf/all/arp_announce", "2"),
		setSysctl("net/ipv4/conf/all/accept_redirects", "0"),
	)
}
