package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	vxlanPort     = 8472
	vxlanOverhead = 70 // of the outer headers, with IPv6
)

// setUpFlannel does what flannel's daemon does on a node: a VXLAN device for each family that leads to the other nodes' pods, and the
// node's address for what pods send out of the cluster.
func (n node) setUpFlannel() error {
	local := n.addresses()
	for i, pods := range n.podCIDRs() {
		vxlan, err := n.addVXLAN(local[i].Addr())
		if err != nil {
			return err
		}
		if err := configure(vxlan.Name, netip.PrefixFrom(pods.Addr(), pods.Addr().BitLen())); err != nil {
			return err
		}
		for _, other := range n.c.nodes() {
			if other.index == n.index {
				continue
			}
			if err := reach(vxlan, other.podCIDRs()[i], other.addresses()[i].Addr(), other.vtep()); err != nil {
				return fmt.Errorf("VXLAN to %s: %w", other.name(), err)
			}
		}
		if err := masquerade(pods, netip.MustParsePrefix(byFamily(n.c, "10.244.0.0/16", "fd44::/48")[i])); err != nil {
			return err
		}
	}
	return nil
}

// vtep is the hardware address of the node's VXLAN devices.
func (n node) vtep() net.HardwareAddr { return net.HardwareAddr{0x02, 0xf1, 0, 0, 0, byte(n.index)} }

func (n node) addVXLAN(local netip.Addr) (*netlink.Vxlan, error) {
	uplink, err := netlink.LinkByName(uplink)
	if err != nil {
		return nil, err
	}
	name := "flannel.1"
	if local.Is6() {
		name = "flannel-v6.1"
	}
	vxlan := &netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: n.vtep(), MTU: 1500 - vxlanOverhead},
		VxlanId:   1, VtepDevIndex: uplink.Attrs().Index, SrcAddr: local.AsSlice(), Port: vxlanPort, Learning: false,
	}
	if err := netlink.LinkAdd(vxlan); err != nil {
		return nil, fmt.Errorf("add %s: %w", name, err)
	}
	return vxlan, nil
}

// reach leads to another node's pods through the VXLAN device.
func reach(vxlan *netlink.Vxlan, pods netip.Prefix, node netip.Addr, vtep net.HardwareAddr) error {
	gateway := pods.Addr()
	return errors.Join(
		netlink.NeighSet(&netlink.Neigh{
			LinkIndex: vxlan.Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT, IP: node.AsSlice(), HardwareAddr: vtep,
		}),
		netlink.NeighSet(&netlink.Neigh{LinkIndex: vxlan.Index, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: vtep}),
		netlink.RouteReplace(&netlink.Route{LinkIndex: vxlan.Index, Dst: ipNet(pods), Gw: gateway.AsSlice(), Flags: int(netlink.FLAG_ONLINK)}),
	)
}

// masquerade gives what the node's pods send out of the cluster the node's address.
func masquerade(pods, allPods netip.Prefix) error {
	program, multicast := "iptables", "224.0.0.0/4"
	if pods.Addr().Is6() {
		program, multicast = "ip6tables", "ff00::/8"
	}
	for _, rule := range []string{
		fmt.Sprintf("-s %s -d %s -j RETURN", allPods, allPods),
		fmt.Sprintf("-s %s ! -d %s -j MASQUERADE --random-fully", pods, multicast),
	} {
		cmd := exec.Command(program, append([]string{"-w", "-t", "nat", "-A", "POSTROUTING"}, strings.Fields(rule)...)...)
		if out, err := cmd.CombinedOutput(); err != nil { // in the thread's network namespace
			return fmt.Errorf("%s %s: %w: %s", program, rule, err, out)
		}
	}
	return nil
}
