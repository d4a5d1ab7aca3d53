package dataplane_test

import (
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// Amazon's VPC CNI gives a pod an address of one of the node's network interfaces (ENIs). Rules send what
// comes from the pod out by that ENI's own table, and what goes to it by the main one.

func addrs(p *netnstest.Pod) []netip.Addr { return []netip.Addr{p.V4, p.V6} }

func single(a netip.Addr) string { return netip.PrefixFrom(a, a.BitLen()).String() }

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func (n *node) rule(priority, table, family int, set func(*netlink.Rule)) {
	n.t.Helper()
	r := netlink.NewRule()
	r.Priority, r.Table, r.Family = priority, table, family
	set(r)
	check(n.t, n.Link.RuleAdd(r))
}

// eni makes a table of its own for what goes out by a link.
func (n *node) eni(out *netnstest.Pod, table int) {
	n.t.Helper()
	for _, everywhere := range []string{"0.0.0.0/0", "::/0"} {
		gateway := out.Addr(everywhere == "::/0")
		check(n.t, n.Link.RouteAdd(&netlink.Route{
			LinkIndex: out.Host.Attrs().Index, Dst: prefix(everywhere), Gw: gateway.AsSlice(), Table: table, Flags: int(netlink.FLAG_ONLINK),
		}))
	}
}

// vpcRules are those of a pod.
func (n *node) vpcRules(p *netnstest.Pod, table int) {
	n.t.Helper()
	for _, a := range addrs(p) {
		n.rule(512, unix.RT_TABLE_MAIN, familyOf(a), func(r *netlink.Rule) { r.Dst = prefix(single(a)) })
		n.rule(1536, table, familyOf(a), func(r *netlink.Rule) { r.Src = prefix(single(a)) })
	}
}

// outside gives a namespace that stands for the VPC an address outside, which answers on two
// ports.
func outside(v *netnstest.Pod, v4, v6 string) (netip.Addr, netip.Addr) {
	lo, err := v.Link.LinkByName("lo")
	if err != nil {
		panic(err)
	}
	v.AddAddress(lo, v4+"/32")
	v.AddAddress(lo, v6+"/128")
	return netip.MustParseAddr(v4), netip.MustParseAddr(v6)
}

const awsSNAT = `
table ip aws {
	chain marking { type filter hook prerouting priority -150; iifname "VPC*" ct mark set ct mark | 0x80; meta mark set ct mark & 0x80; }
	chain outgoing { type nat hook postrouting priority 100; oifname "VPC*" ip daddr != 10.0.0.0/8 snat to 10.9.255.1; }
}
`

func newVPCNode(t *testing.T) (n *node, vpc *netnstest.Pod, far [2]netip.Addr) {
	t.Helper()
	return newVPCNodeWith(t, dataplane.Options{Guard: dataplane.GuardOn})
}

func newVPCNodeWith(t *testing.T, opts dataplane.Options) (n *node, vpc *netnstest.Pod, far [2]netip.Addr) {
	t.Helper()
	n = newNode(t, opts)
	n.Sysctl("ipv4/conf/all/rp_filter", "2") // loose, as the CNI sets it
	vpc = n.AddPod("10.9.254.1", "fd09:fe::1")
	vpc.Forward()
	far[0], far[1] = outside(vpc, "198.51.100.9", "2001:db8::9")
	lo, err := n.Link.LinkByName("lo")
	check(t, err)
	n.AddAddress(lo, "10.9.255.1/32")
	n.eni(vpc, unix.RT_TABLE_MAIN)
	n.uplinks(vpc)
	for _, port := range []uint16{80, 81} {
		vpc.Echo("tcp", port)
		vpc.Echo("udp", port)
	}
	return n, vpc, far
}

func TestVPCLayout(t *testing.T) {
	n, vpc, far := newVPCNode(t)
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	for _, p := range pods(a, b) {
		p.Echo("tcp", 80)
		p.Echo("udp", 80)
		n.vpcRules(p, unix.RT_TABLE_MAIN)
	}
	n.nft(strings.ReplaceAll(awsSNAT, "VPC*", vpc.Host.Attrs().Name))
	farPeers := policy.Rule{Ports: []policy.PortRange{port(policy.TCP, 80)}, Peers: policy.ListPeers(
		policy.Peer{CIDR: netip.PrefixFrom(far[0], 32)}, policy.Peer{CIDR: netip.PrefixFrom(far[1], 128)},
	)}
	n.set(a, isolate(policy.Egress, farPeers, with(pods(b), port(policy.UDP, 80))), isolate(policy.Ingress))
	n.set(b, isolate(policy.Ingress, with(pods(a)), with(pods(vpc), port(policy.TCP, 80))))
	check1 := func(t *testing.T, v6 bool, far netip.Addr) {
		t.Helper()
		reaches(t, a, "tcp", far, 80)
		isKept(t, a, "tcp", far, 81)
		isKept(t, a, "udp", far, 80)
		reaches(t, a, "udp", b.Addr(v6), 80)
		isKept(t, a, "tcp", b.Addr(v6), 80)
		reaches(t, vpc, "tcp", b.Addr(v6), 80)
		isKept(t, vpc, "udp", b.Addr(v6), 80)
		isKept(t, b, "udp", a.Addr(v6), 80)
	}
	bothFamilies(t, func(t *testing.T, v6 bool) { check1(t, v6, far[btoi(v6)]) })

	// The node gets another ENI while it runs, and a pod on it, by which its packets leave and come.
	second := n.AddPod("10.9.253.1", "fd09:fd::1")
	outside(second, far[0].String(), far[1].String())
	for _, port := range []uint16{80, 81} {
		second.Echo("tcp", port)
		second.Echo("udp", port)
	}
	n.eni(second, 2)
	n.uplinks(vpc, second)
	c := n.AddPod("10.9.0.3", "fd09::3")
	n.vpcRules(c, 2)
	n.set(c, isolate(policy.Egress, farPeers), isolate(policy.Ingress))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, c, "tcp", far[btoi(v6)], 80)
		isKept(t, c, "tcp", far[btoi(v6)], 81)
		isKept(t, c, "udp", a.Addr(v6), 80)
		isKept(t, second, "tcp", c.Addr(v6), 80)
		check1(t, v6, far[btoi(v6)])
	})
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Security groups for pods, standard and strict: a pod has a veth and a VLAN device of its own. Strict sends
// all that it sends out by that device, even to a pod of the same node: the packet comes back in by a trunk.
func TestSecurityGroupsForPods(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(map[bool]string{false: "standard", true: "strict"}[strict], func(t *testing.T) {
			n, _, _ := newVPCNode(t)
			n.Sysctl("ipv4/conf/all/rp_filter", "0")
			trunk := n.AddPod("10.9.252.1", "fd09:fc::1") // the fabric, which sends back what is for this node
			trunk.Forward()
			n.Sysctl("ipv4/conf/"+trunk.Host.Attrs().Name+"/rp_filter", "0")
			trunk.Sysctl("ipv4/conf/all/send_redirects", "0")
			trunk.Sysctl("ipv4/conf/eth0/send_redirects", "0")
			a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
			const table = 101
			n.eni(trunk, table)
			n.uplinks(trunk)
			for _, p := range pods(a, b, c) {
				p.Echo("tcp", 80)
				p.Echo("udp", 80)
				n.Sysctl("ipv4/conf/"+p.Host.Attrs().Name+"/rp_filter", "0")
				for _, addr := range addrs(p) {
					if !strict {
						continue
					}
					check(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: p.Host.Attrs().Index, Dst: prefix(single(addr)), Table: table + 1, Scope: netlink.SCOPE_LINK}))
					n.rule(10, table, familyOf(addr), func(r *netlink.Rule) { r.IifName = p.Host.Attrs().Name })
				}
				if !strict {
					n.vpcRules(p, table)
				}
			}
			if strict {
				for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
					n.rule(10, table+1, family, func(r *netlink.Rule) { r.IifName = trunk.Host.Attrs().Name })
				}
			}
			n.set(a)
			n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80), port(policy.UDP, 80))), isolate(policy.Egress))
			n.set(c)
			before := forwarded(t, trunk)
			bothFamilies(t, func(t *testing.T, v6 bool) {
				for _, network := range []string{"tcp", "udp"} {
					reaches(t, a, network, b.Addr(v6), 80)
					isKept(t, c, network, b.Addr(v6), 80)
					isKept(t, b, network, c.Addr(v6), 80)
					reaches(t, c, network, a.Addr(v6), 80)
				}
			})
			if left := forwarded(t, trunk) > before; left != strict {
				t.Errorf("packets left the node and came back: %v, want %v", left, strict)
			}
		})
	}
}

// forwarded is how many packets a namespace has sent by its eth0.
func forwarded(t testing.TB, p *netnstest.Pod) uint64 {
	t.Helper()
	l, err := p.Link.LinkByName("eth0")
	check(t, err)
	return l.Attrs().Statistics.TxPackets / 50 // less some neighbour discovery
}

// NodeLocal DNSCache answers at a link-local address of the node and keeps conntrack out of it.
func TestNodeLocalDNS(t *testing.T) {
	n := newNode(t, dataplane.Options{Guard: dataplane.GuardOn})
	a := n.AddPod("10.9.0.1", "fd09::1")
	lo, err := n.Link.LinkByName("lo")
	check(t, err)
	n.AddAddress(lo, "169.254.20.10/32")
	n.nft(`table ip dns {
		chain in { type filter hook prerouting priority -300; ip daddr 169.254.20.10 notrack; }
		chain out { type filter hook output priority -300; ip saddr 169.254.20.10 notrack; }
	}`)
	for _, network := range []string{"tcp", "udp"} {
		n.Echo(network, 53)
		n.set(a, isolate(policy.Egress), isolate(policy.Ingress))
		reaches(t, a, network, netip.MustParseAddr("169.254.20.10"), 53)
	}
}

// Marks are others' (kube-proxy's, the VPC CNI's): none is set on a packet or a connection. Reports of
// multicast listeners, which this node sends itself, seem to have one: struct sk_buff keeps reserved_tailroom
// (net/ipv6/mcast.c) where the mark is.
func TestNoMarks(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsAll})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.nft(`table inet marks {
		chain on { type filter hook forward priority 0; meta mark != 0 counter; ct mark != 0 counter; }
		chain out { type filter hook postrouting priority 300; icmpv6 type 143 accept; meta mark != 0 counter; ct mark != 0 counter; }
		chain some { type filter hook postrouting priority 299; meta l4proto tcp counter; meta l4proto udp counter; meta l4proto icmp counter; icmpv6 type 128 counter; }
	}`)
	b.Echo("tcp", 80)
	b.Echo("udp", 80)
	n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80), port(policy.UDP, 80))))
	n.set(a, isolate(policy.Ingress))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		for _, network := range []string{"tcp", "udp"} {
			reaches(t, a, network, b.Addr(v6), 80)
			isKept(t, a, network, b.Addr(v6), 81)
		}
		if ping(t, a, b.Addr(v6), netnstest.Silence) {
			t.Error("a pinged b")
		}
		n.set(a)
		if !ping(t, b, a.Addr(v6), netnstest.Patience) {
			t.Error("b did not ping a")
		}
	})
	n.Do(func() error {
		out, err := exec.Command("nft", "list", "table", "inet", "marks").CombinedOutput()
		if got := strings.Count(string(out), "packets 0 "); got != 4 {
			t.Errorf("marked packets, or none of some protocol (%d counters are 0, want 4): %s", got, out)
		}
		return err
	})
}
