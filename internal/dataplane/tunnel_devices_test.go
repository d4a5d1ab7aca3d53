//go:build tunnels

// With the tag "tunnels" for kernels that have these devices: make test-kernels.
package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// Tunnels besides VXLAN, by devices that take packets from everywhere: pods and strangers send nothing through them.
func TestEncapsulatedPacketsToOtherTunnels(t *testing.T) {
	own := net.IPv4(192, 0, 2, 1)
	ipip := func(t *testing.T, n *node) netlink.Link {
		return &netlink.Iptun{LinkAttrs: netlink.LinkAttrs{Name: "tunnel9"}, Local: own, Remote: net.IPv4zero}
	}
	for name, test := range map[string]struct {
		device  func(*testing.T, *node) netlink.Link
		network string // that the outer packet is sent by
		header  []byte // before the inner packet
		// A device of Ethernet that takes packets with any key. Each packet brings its end, so the kernel has none.
		isEndless bool
	}{
		"ipip": {device: ipip, network: "ip4:4"},
		"sit": {device: func(*testing.T, *node) netlink.Link {
			return &netlink.Sittun{LinkAttrs: netlink.LinkAttrs{Name: "tunnel9"}, Local: own, Remote: net.IPv4zero}
		}, network: "ip4:4"},
		"gre": {device: func(*testing.T, *node) netlink.Link {
			return &netlink.Gretun{LinkAttrs: netlink.LinkAttrs{Name: "tunnel9"}, Local: own, Remote: net.IPv4zero}
		}, network: "ip4:47", header: []byte{0, 0, 8, 0}},
		"fou": {device: func(t *testing.T, n *node) netlink.Link {
			addFOU(t, n, netlink.FOU_ENCAP_DIRECT)
			return ipip(t, n)
		}, network: "udp"},
		"gue": {device: func(t *testing.T, n *node) netlink.Link {
			addFOU(t, n, netlink.FOU_ENCAP_GUE)
			return ipip(t, n)
		}, network: "udp", header: []byte{0, 4, 0, 0}},
		"geneve": {device: func(*testing.T, *node) netlink.Link {
			return &netlink.Geneve{LinkAttrs: netlink.LinkAttrs{Name: "tunnel9"}, Dport: 5555, FlowBased: true}
		}, network: "udp", header: []byte{0, 0, 0x65, 0x58, 0, 0, 9, 0}, isEndless: true},
		"erspan": {device: func(t *testing.T, n *node) netlink.Link {
			n.Do(func() error { return addERSPAN("tunnel9") })
			return nil
		}, network: "ip4:47", header: []byte{0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x10, 0, 0, 9, 0, 0, 0, 0}, isEndless: true},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{})
			n.Sysctl("ipv4/conf/all/rp_filter", "0")
			n.Sysctl("ipv4/conf/default/rp_filter", "0")
			n.ownAddress("192.0.2.1/32")
			a, v := layouts["routed veths"](n)
			end, stranger := n.uplink("192.0.2.2", "2001:db8::2"), n.uplink("192.0.2.3", "2001:db8::3")
			if device := test.device(t, n); device != nil {
				check(t, n.Link.LinkAdd(device))
			}
			device, err := n.Link.LinkByName("tunnel9")
			check(t, err)
			check(t, n.Link.LinkSetUp(device))
			check(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Dst: prefix("10.244.1.0/24"), Gw: net.IPv4(192, 0, 2, 2), Flags: int(netlink.FLAG_ONLINK)}))
			n.readUplinks()
			n.set(a)
			n.set(v)
			in := inbox(t, v, 53)
			header := slices.Clone(test.header)
			if test.isEndless {
				header = append(append(header, device.Attrs().HardwareAddr...), 2, 2, 2, 2, 2, 2, 8, 0)
			}
			payload := append(header, udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")...)
			send := func(from *netnstest.Pod) {
				from.Do(func() error {
					to := "192.0.2.1"
					if test.network == "udp" {
						to += ":5555"
					}
					c, err := net.Dial(test.network, to)
					if err != nil {
						return err
					}
					defer func() { _ = c.Close() }()
					_, err = c.Write(payload)
					return err
				})
			}
			if send(a); !arrives(t, in, remote.Addr(), netnstest.Patience) {
				t.Fatal("without the dataplane's tunnels there is nothing to deny")
			}
			n.readTunnels()
			denied := func() uint64 { return denied(t, n.d)[events.ReasonEncapsulated] }
			senders := map[string]*netnstest.Pod{"a pod": a}
			if !test.isEndless {
				senders["a host that is no end"] = stranger
			}
			for who, from := range senders {
				before := denied()
				if send(from); arrives(t, in, remote.Addr(), netnstest.Silence) {
					t.Errorf("the inner packet of %s arrives", who)
				}
				if got := denied() - before; got != 1 {
					t.Errorf("%d packets of %s were counted, want 1", got, who)
				}
			}
			if send(end); !arrives(t, in, remote.Addr(), netnstest.Patience) {
				t.Error("the inner packet of a tunnel's end does not arrive")
			}
		})
	}
}

// addFOU makes the kernel take IPv4 packets out of UDP packets to port 5555.
func addFOU(t *testing.T, n *node, encapsulation uint8) {
	if out, err := exec.Command("/sbin/modprobe", "-q", "--", "fou").CombinedOutput(); err != nil { // the kernel does not ask for it
		t.Fatalf("%v: %s", err, out)
	}
	n.Do(func() error {
		family, err := netlink.GenlFamilyGet("fou")
		if err != nil {
			return err
		}
		request := nl.NewNetlinkRequest(int(family.ID), unix.NLM_F_ACK)
		request.AddData(&nl.Genlmsg{Command: 1, Version: 1})                       // FOU_CMD_ADD of linux/fou.h
		request.AddData(nl.NewRtAttr(1, binary.BigEndian.AppendUint16(nil, 5555))) // FOU_ATTR_PORT
		request.AddData(nl.NewRtAttr(4, []byte{encapsulation}))                    // FOU_ATTR_TYPE
		if encapsulation == netlink.FOU_ENCAP_DIRECT {
			request.AddData(nl.NewRtAttr(3, []byte{4})) // FOU_ATTR_IPPROTO; the netlink package has it always, and GUE not
		}
		_, err = request.Execute(unix.NETLINK_GENERIC, 0)
		return err
	})
}

// addERSPAN makes a device of a kind that the netlink package lacks.
func addERSPAN(name string) error {
	request := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	request.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	request.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name)))
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("erspan"))
	info.AddRtAttr(nl.IFLA_INFO_DATA, nil).AddRtAttr(nl.IFLA_GRE_COLLECT_METADATA, nil)
	request.AddData(info)
	_, err := request.Execute(unix.NETLINK_ROUTE, 0)
	return err
}
