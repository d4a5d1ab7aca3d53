package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// The CNI plugins that a cluster can have, and with them its nodes' layout.
const (
	cniPTP     = "ptp"     // a routed veth for each pod, routes to the other nodes' pods
	cniBridge  = "bridge"  // a bridge on each node, routes to the other nodes' pods
	cniFlannel = "flannel" // a bridge on each node, VXLAN between them
	cniVPC     = "vpc"     // Amazon's plugins: a routed veth for each pod, rules and a route table for each network interface
)

// checkCNI rejects combinations that there are not.
func (c *Cluster) checkCNI() error {
	if !slices.Contains([]string{cniPTP, cniBridge, cniFlannel, cniVPC}, c.CNI) {
		return fmt.Errorf("CNI %q: want ptp, bridge, flannel or vpc", c.CNI)
	}
	if c.CNI == cniVPC && len(c.IPFamilies) != 1 {
		return fmt.Errorf("IP families %s: with the Amazon VPC CNI pods have one, IPv4 or IPv6", strings.Join(c.IPFamilies, ","))
	}
	if c.CNI != cniVPC && (c.VPCEgress || c.VPCPolicyMode != "") {
		return fmt.Errorf("--vpc-egress and --vpc-policy-mode are for --cni=vpc, not %s", c.CNI)
	}
	return nil
}

// cniConfig fills in the templates of the plugins' configurations.
type cniConfig struct {
	PodCIDRs []netip.Prefix
	Defaults []netip.Prefix
	MTU      int
	Egress   *egress
}

// egress is a second interface of each pod, for connections in the family that its address does not have.
type egress struct {
	NodeIP      netip.Addr
	Subnet      string
	Destination netip.Prefix
}

func (n node) cniTemplate() string {
	if n.c.CNI == cniFlannel {
		return "bridge.conflist" // which flannel's plugin calls
	}
	return n.c.CNI + ".conflist"
}

func (n node) cniConfig() cniConfig {
	config := cniConfig{PodCIDRs: n.podCIDRs(), Defaults: byFamily(n.c, default4, default6), MTU: 1500}
	if n.c.CNI == cniFlannel {
		config.MTU -= vxlanOverhead
	}
	if n.c.VPCEgress {
		config.Egress = byFamily(n.c,
			&egress{n.address6().Addr(), "fd00::ac:00/118", default6},
			&egress{n.address4().Addr(), "169.254.172.0/22", default4})[0]
	}
	return config
}

// cniDirs are where containerd looks for plugins.
func (c *Cluster) cniDirs() []string {
	dirs := []string{c.Node + "/cni"}
	if c.CNI == cniVPC {
		dirs = append(dirs, c.VPC+"/cni")
	}
	return dirs
}

// lanFamilies are those that the nodes have addresses of: both where pods reach the other family through their node.
func (c *Cluster) lanFamilies() []string {
	if c.VPCEgress {
		return []string{ipv4, ipv6}
	}
	return c.IPFamilies
}
