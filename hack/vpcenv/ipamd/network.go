package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Priorities of the node's rules, and the mark of connections that came in by the primary interface.
const (
	mainRulePriority = 1024
	mark             = 0x80
)

// setUpNode gives the node what all pods share.
func (c config) setUpNode(ctx context.Context) error {
	// The VPC delivers only to addresses that an interface has: without this, the node and the router would pass packets to others around.
	for _, e := range c.Interfaces {
		unassigned := &netlink.Route{Dst: ipNet(e.Pods), Type: unix.RTN_BLACKHOLE}
		if err := netlink.RouteReplace(unassigned); err != nil {
			return fmt.Errorf("blackhole for %s: %w", e.Pods, err)
		}
	}
	if !c.ipv4() {
		return nil
	}
	rule := netlink.NewRule()
	value, mask := uint32(mark), uint32(mark)
	rule.Priority, rule.Table, rule.Mark, rule.Mask = mainRulePriority, unix.RT_TABLE_MAIN, value, &mask
	if err := netlink.RuleAdd(rule); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("rule for the mark: %w", err)
	}
	return restoreTables(ctx, c.nat())
}

// nat are the rules of iptables. Packets to destinations outside the VPC get the primary interface's address, and leave by that interface. So do
// replies of connections that came in by it, which may be for a pod on another interface.
func (c config) nat() string {
	primary := c.Interfaces[0]
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("*mangle")
	line("-A PREROUTING -i %s -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark %#x/%#x", primary.Name, mark, mark)
	line("-A PREROUTING -i eni+ -j CONNMARK --restore-mark --nfmask %#x --ctmask %#x", mark, mark)
	line("COMMIT")
	line("*nat")
	line(":AWS-CONNMARK-CHAIN-0 - [0:0]")
	line(":AWS-SNAT-CHAIN-0 - [0:0]")
	line("-A PREROUTING -i eni+ -m conntrack --ctstate NEW -j AWS-CONNMARK-CHAIN-0")
	line("-A PREROUTING -j CONNMARK --restore-mark --nfmask %#x --ctmask %#x", mark, mark)
	line("-A POSTROUTING -j AWS-SNAT-CHAIN-0")
	for _, vpc := range c.VPC {
		line("-A AWS-CONNMARK-CHAIN-0 -d %s -j RETURN", vpc)
		line("-A AWS-SNAT-CHAIN-0 -d %s -j RETURN", vpc)
	}
	line("-A AWS-CONNMARK-CHAIN-0 -j CONNMARK --set-xmark %#x/%#x", mark, mark)
	line("-A AWS-SNAT-CHAIN-0 ! -o vlan+ -m addrtype ! --dst-type LOCAL -j SNAT --to-source %s --random-fully", primary.Address.Addr())
	line("COMMIT")
	return b.String()
}

// restoreTables adds rules to iptables, unless an earlier daemon has added them.
func restoreTables(ctx context.Context, rules string) error {
	if exec.CommandContext(ctx, "iptables", "-w", "-t", "nat", "-n", "-L", "AWS-SNAT-CHAIN-0").Run() == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, "iptables-restore", "-w", "--noflush")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("iptables-restore: %w: %s\n%s", err, out, rules)
	}
	return nil
}

// attach brings an interface up when its first pod comes, with a route table of its own for what its pods send.
func (c config) attach(device int) error {
	if device == 0 {
		return nil
	}
	e := c.Interfaces[device]
	link, err := netlink.LinkByName(e.Name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", e.Name, err)
	}
	if err := netlink.AddrReplace(link, &netlink.Addr{IPNet: ipNet(e.Address), Flags: unix.IFA_F_NOPREFIXROUTE}); err != nil {
		return fmt.Errorf("address %s on %s: %w", e.Address, e.Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up %s: %w", e.Name, err)
	}
	index, table := link.Attrs().Index, routeTable(device)
	for _, route := range []*netlink.Route{
		{LinkIndex: index, Table: table, Scope: netlink.SCOPE_LINK, Dst: ipNet(netip.PrefixFrom(e.Gateway, e.Gateway.BitLen()))},
		{LinkIndex: index, Table: table, Dst: ipNet(everywhere(e.Gateway)), Gw: e.Gateway.AsSlice()},
	} {
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route %s: %w", route, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
