package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

const vxlanPort = 8472 // flannel's

// overlay is flannel's device on a node.
type overlay struct {
	node *netnstest.Namespace
	own  netip.Addr // of the node
	link netlink.Link
}

// addOverlay makes it, with routes to the pods of other nodes by this device.
func addOverlay(t testing.TB, node *netnstest.Namespace, own string, remote string) *overlay {
	t.Helper()
	o := &overlay{node: node, own: netip.MustParseAddr(own)}
	node.Sysctl("ipv4/conf/default/rp_filter", "0")
	check(t, node.Link.LinkAdd(&netlink.Vxlan{
		LinkAttrs: netlink.LinkAttrs{Name: "flannel.1", MTU: 1450}, VxlanId: 1, Port: vxlanPort, SrcAddr: o.own.AsSlice(),
	}))
	var err error
	o.link, err = node.Link.LinkByName("flannel.1")
	check(t, err)
	check(t, node.Link.LinkSetUp(o.link))
	network := prefix(remote)
	node.AddAddress(o.link, map[string]string{"10.244.0.0/24": "10.244.1.0/32", "10.244.1.0/24": "10.244.0.0/32"}[remote])
	check(t, node.Link.RouteAdd(&netlink.Route{LinkIndex: o.link.Attrs().Index, Dst: network, Gw: network.IP, Flags: int(netlink.FLAG_ONLINK)}))
	return o
}

// addEnd makes another node an end of the tunnel, as flannel does.
func (o *overlay) addEnd(t testing.TB, end string) {
	t.Helper()
	check(t, o.node.Link.NeighAppend(&netlink.Neigh{
		LinkIndex: o.link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
		HardwareAddr: net.HardwareAddr{2, 2, 2, 2, 2, 2}, IP: net.ParseIP(end),
	}))
}

// send sends a packet inside of another to a node's overlay.
func (o *overlay) send(t testing.TB, from *netnstest.Namespace, to netip.AddrPort, inner []byte) {
	t.Helper()
	frame := append(append([]byte{}, o.link.Attrs().HardwareAddr...), 2, 2, 2, 2, 2, 2, 0x08, 0x00)
	c, err := from.Dial("udp", to, netnstest.Patience)
	check(t, err)
	_, err = c.Write(append(append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, frame...), inner...))
	check(t, err)
	check(t, c.Close())
}

func udpIPv4(source, destination netip.AddrPort, data string) []byte {
	b := make([]byte, 28, 28+len(data))
	b = append(b, data...)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	copy(b[12:], source.Addr().AsSlice())
	copy(b[16:], destination.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], checksum(0, b[:20]))
	binary.BigEndian.PutUint16(b[20:], source.Port())
	binary.BigEndian.PutUint16(b[22:], destination.Port())
	binary.BigEndian.PutUint16(b[24:], uint16(len(b)-20))
	return b
}

// readTunnels reads what the node decapsulates, as an agent does, and puts it in force.
func (n *node) readTunnels() *inspect.Tunnels {
	n.t.Helper()
	var tunnels *inspect.Tunnels
	n.Do(func() error {
		var err error
		if tunnels, err = inspect.ReadTunnels(); err != nil {
			return err
		}
		return n.d.SetTunnels(tunnels)
	})
	return tunnels
}

func (n *node) readUplinks() {
	n.t.Helper()
	n.Do(func() error {
		interfaces, err := inspect.ReadInterfaces()
		if err == nil {
			n.compiler.SetUplinks(interfaces.Uplinks)
			err = n.d.Apply(n.compiler.Commit())
		}
		return err
	})
}

// uplink is a cable to another host.
func (n *node) uplink(v4, v6 string) *netnstest.Pod {
	n.t.Helper()
	out := n.AddPod(v4, v6)
	n.Sysctl("ipv4/conf/"+out.Host.Attrs().Name+"/rp_filter", "0")
	check(n.t, n.Link.RouteAdd(&netlink.Route{LinkIndex: out.Host.Attrs().Index, Dst: prefix("203.0.113.0/24"), Scope: netlink.SCOPE_LINK, Table: 1000 + out.Host.Attrs().Index}))
	return out
}

func (n *node) ownAddress(addr string) {
	n.t.Helper()
	lo, err := n.Link.LinkByName("lo")
	check(n.t, err)
	n.AddAddress(lo, addr)
}

// Where the pods of a node are: behind routed veths, or on a bridge as flannel has them.
var layouts = map[string]func(*node) (a, v *netnstest.Pod){
	"routed veths": func(n *node) (a, v *netnstest.Pod) {
		a, v = n.AddPod("10.244.0.2", "fd09::2"), n.AddPod("10.244.0.3", "fd09::3")
		for _, p := range pods(a, v) {
			n.Sysctl("ipv4/conf/"+p.Host.Attrs().Name+"/rp_filter", "0")
		}
		return a, v
	},
	"bridge": func(n *node) (a, v *netnstest.Pod) {
		n.Sysctl("bridge/bridge-nf-call-iptables", "1")
		n.Sysctl("bridge/bridge-nf-call-ip6tables", "1")
		bridge := n.AddBridge("cni0")
		a, v = n.AddBridgedPod(bridge, "10.244.0.2", "fd09::2"), n.AddBridgedPod(bridge, "10.244.0.3", "fd09::3")
		n.AddAddress(bridge, "10.244.0.1/24")
		for _, p := range pods(a, v) {
			eth0, err := p.Link.LinkByName("eth0")
			check(n.t, err)
			check(n.t, p.Link.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: net.IPv4(10, 244, 0, 1), Dst: prefix("0.0.0.0/0")}))
		}
		return a, v
	},
}

// flannelNode is a node of flannel's with two pods, a host that is the end of a tunnel, and one that is not. The
// pods are under deny-all policies, except that v allows pods of the other node.
func flannelNode(t *testing.T, opts dataplane.Options, layout func(*node) (a, v *netnstest.Pod)) (n *node, o *overlay, a, v, end, stranger *netnstest.Pod) {
	t.Helper()
	n = newNode(t, opts)
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	n.Sysctl("ipv4/conf/default/rp_filter", "0")
	n.ownAddress("192.0.2.1/32")
	a, v = layout(n)
	end, stranger = n.uplink("192.0.2.2", "2001:db8::2"), n.uplink("192.0.2.3", "2001:db8::3")
	o = addOverlay(t, n.Namespace, "192.0.2.1", "10.244.1.0/24")
	o.addEnd(t, "192.0.2.2")
	n.readUplinks()
	for _, p := range pods(a, v) {
		index := uint32(p.Host.Attrs().Index)
		if n.isBridged(p) {
			index = 0
		}
		policies := []*policy.Policy{isolate(policy.Ingress), isolate(policy.Egress)}
		if p == v {
			policies[0] = isolate(policy.Ingress, policy.Rule{EveryPort: true, Peers: policy.ListPeers(policy.Peer{CIDR: netip.MustParsePrefix("10.244.1.0/24")})})
		}
		n.setBehind(p, index, 0, policies)
	}
	return n, o, a, v, end, stranger
}

func (n *node) isBridged(p *netnstest.Pod) bool {
	n.t.Helper()
	link, err := n.Link.LinkByIndex(p.Host.Attrs().Index)
	check(n.t, err)
	return link.Attrs().MasterIndex != 0
}

var remote = netip.MustParseAddrPort("10.244.1.5:4242") // of a pod of another node

// A pod cannot send what its policies deny through its own node's tunnel, nor pass for a pod of another node.
func TestEncapsulatedPacketsOfAPodToItsNode(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			n, o, a, v, end, stranger := flannelNode(t, dataplane.Options{}, layout)
			in := inbox(t, v, 53)
			node, inner := netip.MustParseAddrPort("192.0.2.1:8472"), udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")

			o.send(t, a.Namespace, node, inner)
			if !arrives(t, in, remote.Addr(), netnstest.Patience) {
				t.Fatal("without the dataplane's tunnels there is nothing to deny")
			}
			n.readTunnels()
			for who, from := range map[string]*netnstest.Pod{"a pod": a, "a host that is no end": stranger} {
				before := denied(t, n.d)[events.ReasonEncapsulated]
				o.send(t, from.Namespace, node, inner)
				if arrives(t, in, remote.Addr(), netnstest.Silence) {
					t.Errorf("the inner packet of %s arrives", who)
				}
				if got := denied(t, n.d)[events.ReasonEncapsulated] - before; got != 1 {
					t.Errorf("%d packets of %s were counted, want 1", got, who)
				}
			}
			o.send(t, end.Namespace, node, inner)
			if !arrives(t, in, remote.Addr(), netnstest.Patience) {
				t.Error("the inner packet of a tunnel's end does not arrive")
			}
		})
	}
}

// A pod that writes a node's address is still no node.
func TestEncapsulatedPacketsWithANodesAddress(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			n, o, a, v, _, _ := flannelNode(t, dataplane.Options{}, layout)
			in := inbox(t, v, 53)
			n.readTunnels()
			claim(t, a, netip.MustParseAddr("192.0.2.2"))
			frame := append(append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, o.link.Attrs().HardwareAddr...), 2, 2, 2, 2, 2, 2, 0x08, 0x00)
			frame = append(frame, udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")...)
			a.Do(func() error {
				c, err := (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2)}}).Dial("udp", "192.0.2.1:8472")
				if err != nil {
					return err
				}
				defer func() { _ = c.Close() }()
				_, err = c.Write(frame)
				return err
			})
			if arrives(t, in, remote.Addr(), netnstest.Silence) {
				t.Error("the inner packet arrives")
			}
			if got := denied(t, n.d)[events.ReasonEncapsulated]; got != 1 {
				t.Errorf("%d packets were counted, want 1", got)
			}
		})
	}
}

// Conntrack has the pod's flow from before the tunnel was there.
func TestEncapsulatedPacketsOfAnOlderFlow(t *testing.T) {
	n, o, a, v, _, _ := flannelNode(t, dataplane.Options{}, layouts["routed veths"])
	in := inbox(t, v, 53)
	inner := udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")
	c, err := a.Dial("udp", netip.MustParseAddrPort("192.0.2.1:8472"), netnstest.Patience)
	check(t, err)
	defer func() { _ = c.Close() }()
	send := func() {
		frame := append(append([]byte{8, 0, 0, 0, 0, 0, 1, 0}, o.link.Attrs().HardwareAddr...), 2, 2, 2, 2, 2, 2, 0x08, 0x00)
		_, err := c.Write(append(frame, inner...))
		check(t, err)
	}
	if send(); !arrives(t, in, remote.Addr(), netnstest.Patience) {
		t.Fatal("without the dataplane's tunnels there is nothing to deny")
	}
	n.readTunnels()
	if send(); arrives(t, in, remote.Addr(), netnstest.Silence) {
		t.Error("the inner packet arrives")
	}
}

// What a pod sends to another node leaves with its own node's address, so only its own node can deny it.
func TestEncapsulatedPacketsOfAPodToAnotherNode(t *testing.T) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) {
			n, _, a, _, other, _ := flannelNode(t, dataplane.Options{}, layout)
			n.setBehind(a, 0, 0, nil) // a policy need not isolate it
			n.nft(`table ip nat { chain post { type nat hook postrouting priority 100
				ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 snat to 192.0.2.1
			}
		}
		`)
			other.Forward()
			theirs := other.AddPod("10.244.1.9", "fd09:1::9")
			there := addOverlay(t, other.Namespace, "192.0.2.2", "10.244.0.0/24")
			other.Sysctl("ipv4/conf/all/rp_filter", "0")
			in := inbox(t, theirs, 53)
			to := netip.MustParseAddrPort("192.0.2.2:8472")
			source := netip.MustParseAddrPort("10.244.0.77:4242") // of another pod of a's node
			inner := udpIPv4(source, netip.AddrPortFrom(theirs.V4, 53), "hello")

			there.send(t, a.Namespace, to, inner)
			if !arrives(t, in, source.Addr(), netnstest.Patience) {
				t.Fatal("without the dataplane's tunnels there is nothing to deny")
			}
			n.readTunnels()
			there.send(t, a.Namespace, to, inner)
			if arrives(t, in, source.Addr(), netnstest.Silence) {
				t.Error("the inner packet arrives")
			}
			if got := denied(t, n.d)[events.ReasonEncapsulated]; got != 1 {
				t.Errorf("%d packets were counted, want 1", got)
			}
			other.Echo("udp", 80)
			reaches(t, a, "udp", to.Addr(), 80)
			there.send(t, n.Namespace, to, inner)
			if !arrives(t, in, source.Addr(), netnstest.Patience) {
				t.Error("the inner packet of the node itself does not arrive")
			}
		})
	}
}

// A tunnel between pods is their own affair.
func TestTunnelBetweenPods(t *testing.T) {
	n, _, a, v, _, _ := flannelNode(t, dataplane.Options{}, layouts["routed veths"])
	n.set(a)
	n.set(v)
	tunnels := n.readTunnels()
	v.Echo("udp", vxlanPort)
	reaches(t, a, "udp", v.V4, vxlanPort)
	tunnels.Endless = []string{"geneve0"}
	n.Do(func() error { return n.d.SetTunnels(tunnels) })
	reaches(t, a, "udp", v.V4, vxlanPort)
}

// No other node sends packets of this node's pods through a tunnel.
func TestInnerPacketWithAPodsAddress(t *testing.T) {
	n, o, a, v, end, _ := flannelNode(t, dataplane.Options{}, layouts["routed veths"])
	n.set(a)
	n.set(v, isolate(policy.Ingress, with(pods(a))))
	in := inbox(t, v, 53)
	node, inner := netip.MustParseAddrPort("192.0.2.1:8472"), udpIPv4(netip.AddrPortFrom(a.V4, 4242), netip.AddrPortFrom(v.V4, 53), "hello")
	o.send(t, end.Namespace, node, inner)
	if !arrives(t, in, a.V4, netnstest.Patience) {
		t.Fatal("without the dataplane's tunnels there is nothing to deny")
	}
	n.readTunnels()
	before := denied(t, n.d)[events.ReasonSpoofed]
	o.send(t, end.Namespace, node, udpIPv4(netip.AddrPortFrom(a.V4, 4243), netip.AddrPortFrom(v.V4, 53), "hello"))
	if arrives(t, in, a.V4, netnstest.Silence) {
		t.Error("the inner packet arrives")
	}
	if got := denied(t, n.d)[events.ReasonSpoofed] - before; got != 1 {
		t.Errorf("%d packets were counted as spoofed, want 1", got)
	}
}

// A Service that leads to a node's tunnel does not turn the node that forwards its packets into a sender.
func TestEncapsulatedPacketsThroughAService(t *testing.T) {
	n, o, _, v, end, _ := flannelNode(t, dataplane.Options{}, layouts["routed veths"])
	in := inbox(t, v, 53)
	n.nft(`table ip nat { chain pre { type nat hook prerouting priority -100
		udp dport 30000 dnat to 192.0.2.1:8472
	}
	}
	`)
	n.readTunnels()
	inner := udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")
	o.send(t, end.Namespace, netip.MustParseAddrPort("192.0.2.1:30000"), inner)
	if arrives(t, in, remote.Addr(), netnstest.Silence) {
		t.Error("the inner packet arrives")
	}
	if got := denied(t, n.d)[events.ReasonEncapsulated]; got != 1 {
		t.Errorf("%d packets were counted, want 1", got)
	}
}

// Ends that the kernel does not have: pods are still none.
func TestTunnelWithoutEnds(t *testing.T) {
	n, o, a, v, _, stranger := flannelNode(t, dataplane.Options{}, layouts["routed veths"])
	in := inbox(t, v, 53)
	tunnels := n.readTunnels()
	tunnels.Endless = []string{"geneve0"}
	n.Do(func() error { return n.d.SetTunnels(tunnels) })
	node, inner := netip.MustParseAddrPort("192.0.2.1:8472"), udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")
	o.send(t, a.Namespace, node, inner)
	if arrives(t, in, remote.Addr(), netnstest.Silence) {
		t.Error("a pod's inner packet arrives")
	}
	o.send(t, stranger.Namespace, node, inner)
	if !arrives(t, in, remote.Addr(), netnstest.Patience) {
		t.Error("another host's inner packet does not arrive")
	}
	n.set(a)
	before := denied(t, n.d)[events.ReasonEncapsulated]
	o.send(t, a.Namespace, netip.MustParseAddrPort("192.0.2.3:8472"), inner)
	if got := denied(t, n.d)[events.ReasonEncapsulated] - before; got != 1 {
		t.Errorf("%d packets to another host were counted, want 1", got)
	}
}

// A node that only audits denies nothing.
func TestEncapsulatedPacketsUnderAudit(t *testing.T) {
	n, o, a, v, _, _ := flannelNode(t, dataplane.Options{Audit: true}, layouts["routed veths"])
	in := inbox(t, v, 53)
	n.readTunnels()
	o.send(t, a.Namespace, netip.MustParseAddrPort("192.0.2.1:8472"), udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello"))
	if !arrives(t, in, remote.Addr(), netnstest.Patience) {
		t.Error("the inner packet does not arrive")
	}
}

// Tunnels without ports: a protocol that a pod sends by a raw socket.
func TestEncapsulationByProtocol(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, end := n.AddPod("10.9.0.1", "fd09::1"), n.uplink("192.0.2.2", "2001:db8::2")
	n.ownAddress("192.0.2.1/32")
	n.ownAddress("2001:db8::1/128")
	n.readUplinks()
	n.set(a)
	tunnels := &inspect.Tunnels{Protocols: []uint8{4, 41, 47}, Ends: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("2001:db8::2/128")}}
	for _, network := range []string{"ip4:4", "ip4:41", "ip4:47", "ip6:4", "ip6:41", "ip6:47"} {
		t.Run(network, func(t *testing.T) {
			to, sources := net.IPv4(192, 0, 2, 1), map[*netnstest.Pod]net.IP{a: a.V4.AsSlice(), end: end.V4.AsSlice()}
			if network[:3] == "ip6" {
				to, sources = net.ParseIP("2001:db8::1"), map[*netnstest.Pod]net.IP{a: a.V6.AsSlice(), end: end.V6.AsSlice()}
			}
			var in *net.IPConn
			n.Do(func() error {
				var err error
				in, err = net.ListenIP(network, nil)
				return err
			})
			defer func() { _ = in.Close() }()
			comes := func(from *netnstest.Pod, within time.Duration) bool {
				t.Helper()
				from.Do(func() error {
					c, err := net.DialIP(network, &net.IPAddr{IP: sources[from]}, &net.IPAddr{IP: to})
					if err != nil {
						return err
					}
					defer func() { _ = c.Close() }()
					_, err = c.Write(make([]byte, 40))
					return err
				})
				check(t, in.SetReadDeadline(time.Now().Add(within)))
				_, err := in.Read(make([]byte, 100))
				return err == nil
			}
			n.Do(func() error { return n.d.SetTunnels(&inspect.Tunnels{}) })
			if !comes(a, netnstest.Patience) {
				t.Fatal("without tunnels there is nothing to deny")
			}
			n.Do(func() error { return n.d.SetTunnels(tunnels) })
			if comes(a, netnstest.Silence) {
				t.Error("a pod's packet arrives")
			}
			if !comes(end, netnstest.Patience) {
				t.Error("an end's packet does not arrive")
			}
		})
	}
}

// The hook of packets to the node is used only while there are tunnels.
func TestLocalInOnlyWithTunnels(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	links := func() int {
		t.Helper()
		paths, err := filepath.Glob(filepath.Join(n.opts.BPFFS, "kidoban", "*", "link_local_in_*"))
		check(t, err)
		return len(paths)
	}
	n.readTunnels()
	if got := links(); got != 0 {
		t.Errorf("%d links without a tunnel", got)
	}
	o := addOverlay(t, n.Namespace, "192.0.2.1", "10.244.1.0/24")
	n.readTunnels()
	if got := links(); got != 2 {
		t.Errorf("%d links with a tunnel, want 2", got)
	}
	check(t, n.d.CheckLinks())
	next := newDataplane(t, n.opts)
	n.Do(next.Attach)
	if got := links(); got != 0 {
		t.Errorf("%d links of an earlier generation are left", got)
	}
	n.d = next
	n.readTunnels()
	check(t, n.Link.LinkDel(o.link))
	n.readTunnels()
	if got := links(); got != 0 {
		t.Errorf("%d links after the tunnel", got)
	}
	check(t, n.d.CheckLinks())
}
