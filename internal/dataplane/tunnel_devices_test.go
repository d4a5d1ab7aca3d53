//go:build tunnels

// With the tag "tunnels" for kernels that have these devices: make test-kernels.
package dataplane_test

import (
	"net"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"
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
	}{
		"ipip": {ipip, "ip4:4", nil},
		"gre": {func(*testing.T, *node) netlink.Link {
			return &netlink.Gretun{LinkAttrs: netlink.LinkAttrs{Name: "tunnel9"}, Local: own, Remote: net.IPv4zero}
		}, "ip4:47", []byte{0, 0, 8, 0}},
		"fou": {func(t *testing.T, n *node) netlink.Link {
			if out, err := exec.Command("/sbin/modprobe", "-q", "--", "fou").CombinedOutput(); err != nil { // the kernel does not ask for it
				t.Fatalf("%v: %s", err, out)
			}
			n.Do(func() error {
				return netlink.FouAdd(netlink.Fou{Family: unix.AF_INET, Port: 5555, Protocol: 4, EncapType: netlink.FOU_ENCAP_DIRECT})
			})
			return ipip(t, n)
		}, "udp", nil},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{})
			n.Sysctl("ipv4/conf/all/rp_filter", "0")
			n.Sysctl("ipv4/conf/default/rp_filter", "0")
			n.ownAddress("192.0.2.1/32")
			a, v := layouts["routed veths"](n)
			end, stranger := n.uplink("192.0.2.2", "2001:db8::2"), n.uplink("192.0.2.3", "2001:db8::3")
			check(t, n.Link.LinkAdd(test.device(t, n)))
			device, err := n.Link.LinkByName("tunnel9")
			check(t, err)
			check(t, n.Link.LinkSetUp(device))
			check(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: device.Attrs().Index, Dst: prefix("10.244.1.0/24"), Gw: net.IPv4(192, 0, 2, 2), Flags: int(netlink.FLAG_ONLINK)}))
			n.readUplinks()
			n.set(a)
			n.set(v)
			in := inbox(t, v, 53)
			payload := append(append([]byte{}, test.header...), udpIPv4(remote, netip.AddrPortFrom(v.V4, 53), "hello")...)
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
			for who, from := range map[string]*netnstest.Pod{"a pod": a, "a host that is no end": stranger} {
				before := denied(t, n.d)[events.ReasonEncapsulated]
				if send(from); arrives(t, in, remote.Addr(), netnstest.Silence) {
					t.Errorf("the inner packet of %s arrives", who)
				}
				if got := denied(t, n.d)[events.ReasonEncapsulated] - before; got != 1 {
					t.Errorf("%d packets of %s were counted, want 1", got, who)
				}
			}
			if send(end); !arrives(t, in, remote.Addr(), netnstest.Patience) {
				t.Error("the inner packet of a tunnel's end does not arrive")
			}
		})
	}
}
