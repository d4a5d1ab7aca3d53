package inspect_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

// advertise sends a router advertisement, with a default route and a prefix, until the node has both routes.
func advertise(t *testing.T, n *netnstest.Namespace, from *netnstest.Pod, index int, lifetime uint32) {
	t.Helper()
	ra := make([]byte, 48)
	ra[0], ra[4] = 134, 64
	binary.BigEndian.PutUint16(ra[6:], 1800)
	ra[16], ra[17], ra[18], ra[19] = 3, 4, 64, 0xc0 // prefix information: on-link, autonomous
	binary.BigEndian.PutUint32(ra[20:], lifetime)
	binary.BigEndian.PutUint32(ra[24:], lifetime)
	copy(ra[32:], netip.MustParseAddr("2001:db8:77::").AsSlice())
	for deadline := time.Now().Add(netnstest.Patience); ; time.Sleep(50 * time.Millisecond) {
		from.Do(func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
			if err != nil {
				return err
			}
			defer func() { _ = unix.Close(fd) }()
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
				return err
			}
			eth0, err := net.InterfaceByName("eth0")
			if err != nil {
				return err
			}
			to := &unix.SockaddrInet6{ZoneId: uint32(eth0.Index)}
			copy(to.Addr[:], netip.MustParseAddr("ff02::1").AsSlice())
			_ = unix.Sendto(fd, ra, 0, to) // fails while the link has no address of its own
			return nil
		})
		routes, err := n.Link.RouteListFiltered(unix.AF_INET6, &netlink.Route{LinkIndex: index}, netlink.RT_FILTER_OIF)
		check(t, err)
		found := 0
		for _, r := range routes {
			if r.Dst == nil || r.Dst.String() == "::/0" || r.Dst.String() == "2001:db8:77::/64" {
				found++
			}
		}
		if found == 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the node takes no router advertisement: %v", routes)
		}
	}
}

// A pod's router advertisement makes no uplink of its interface, and the agent warns where the node accepts it.
func TestRouterAdvertisementsOfPods(t *testing.T) {
	for name, s := range map[string]struct {
		forwarding, acceptRA string
		lifetime             uint32
	}{
		"a host":                       {"0", "1", 7200},
		"a router that accepts them":   {"1", "2", 7200},
		"a prefix that lives for ever": {"1", "2", ^uint32(0)},
	} {
		t.Run(name, func(t *testing.T) {
			n := netnstest.NewRouter(t)
			pod, own := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
			for _, addr := range []netip.Addr{own.V4, own.V6} { // the node's own cable has no routes to single addresses
				check(t, n.Link.RouteDel(&netlink.Route{LinkIndex: own.Host.Attrs().Index, Dst: prefix(netip.PrefixFrom(addr, addr.BitLen()).String()), Scope: netlink.SCOPE_LINK}))
			}
			bridge := n.AddBridge("cni0")
			bridged := n.AddBridgedPod(bridge, "10.8.0.2", "fd08::2")
			index := func(l netlink.Link) uint32 { return uint32(l.Attrs().Index) }
			warned := func() (found string) {
				n.Do(func() error {
					for _, w := range inspect.Warnings() {
						if strings.Contains(string(w), "router advertisements") {
							found = string(w)
						}
					}
					return nil
				})
				return found
			}
			for _, l := range []netlink.Link{pod.Host, own.Host, bridge} {
				n.Sysctl("ipv6/conf/"+l.Attrs().Name+"/accept_ra", "0")
			}
			if got := warned(); got != "" {
				t.Errorf("warned where none is accepted: %s", got)
			}
			for _, l := range []netlink.Link{pod.Host, own.Host, bridge} {
				n.Sysctl("ipv6/conf/"+l.Attrs().Name+"/forwarding", s.forwarding)
				n.Sysctl("ipv6/conf/"+l.Attrs().Name+"/accept_ra", s.acceptRA)
			}
			if got := warned(); !strings.Contains(got, "2 interfaces of pods") {
				t.Errorf("warned %q", got)
			}
			advertise(t, n, pod, pod.Host.Attrs().Index, s.lifetime)
			advertise(t, n, bridged, bridge.Attrs().Index, s.lifetime)
			got := readInterfaces(n)
			if slices.Contains(got.Uplinks, index(pod.Host)) || slices.Contains(got.Uplinks, index(bridge)) {
				t.Errorf("uplinks %v have the pod's interface %d or the bridge %d", got.Uplinks, index(pod.Host), index(bridge))
			}
			if addrs := got.Routed[index(pod.Host)]; !slices.Equal(addrs, []netip.Addr{pod.V4, pod.V6}) {
				t.Errorf("routed to the pod are %v", addrs)
			}
			advertise(t, n, own, own.Host.Attrs().Index, s.lifetime)
			if got := readInterfaces(n); !slices.Contains(got.Uplinks, index(own.Host)) {
				t.Errorf("uplinks %v lack the node's own, %d", got.Uplinks, index(own.Host))
			}
		})
	}
}

func TestLenientConntrackIsReported(t *testing.T) {
	n := netnstest.NewRouter(t)
	for value, want := range map[string]bool{"0": false, "1": true} {
		n.Sysctl("netfilter/nf_conntrack_tcp_be_liberal", value)
		n.Do(func() error {
			warned := slices.ContainsFunc(inspect.Warnings(), func(w inspect.Warning) bool { return strings.Contains(string(w), "be_liberal") })
			if warned != want {
				t.Errorf("nf_conntrack_tcp_be_liberal=%s: warned %t", value, warned)
			}
			return nil
		})
	}
}
