package inspect_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/node"
)

func prefix(s string) *net.IPNet {
	p := netip.MustParsePrefix(s)
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func readInterfaces(n *netnstest.Namespace) node.Interfaces {
	var out node.Interfaces
	n.Do(func() error {
		var err error
		out, err = inspect.ReadInterfaces()
		return err
	})
	return out
}

func TestReadInterfaces(t *testing.T) {
	n := netnstest.NewRouter(t)
	pod, ruled, router, outside := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3"), n.AddPod("10.9.0.4", "fd09::4")
	index := func(p *netnstest.Pod) int { return p.Host.Attrs().Index }
	egress := n.AddInterface(pod, "v4if0", netip.MustParseAddr("169.254.172.5"), netip.MustParseAddr("169.254.172.1"))
	bridge := n.AddBridge("cni0")
	n.AddBridgedPod(bridge, "10.8.0.2", "fd08::2")
	n.AddAddress(bridge, "10.8.0.1/24")
	uplinkBridge := n.AddBridge("br0")
	n.AddAddress(uplinkBridge, "10.7.0.1/24")
	check(t, n.Link.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vxlan9", MasterIndex: uplinkBridge.Attrs().Index}, VxlanId: 9, Port: 4789}))
	for _, r := range []netlink.Route{
		{LinkIndex: index(ruled), Dst: prefix("10.9.0.2/32"), Table: 101, Scope: netlink.SCOPE_LINK}, // as security groups for pods have it
		{LinkIndex: index(router), Dst: prefix("10.6.0.0/16"), Scope: netlink.SCOPE_LINK},
		{LinkIndex: index(outside), Dst: prefix("0.0.0.0/0"), Table: 2, Scope: netlink.SCOPE_LINK},
	} {
		check(t, n.Link.RouteAdd(&r))
	}
	check(t, n.Link.RouteDel(&netlink.Route{LinkIndex: index(ruled), Dst: prefix("10.9.0.2/32"), Table: unix.RT_TABLE_MAIN, Scope: netlink.SCOPE_LINK}))

	got := readInterfaces(n)
	for _, p := range []*netnstest.Pod{pod, ruled} {
		if addrs := got.Routed[uint32(index(p))]; !slices.Equal(addrs, []netip.Addr{p.V4, p.V6}) {
			t.Errorf("routed to %v are %v", p.V4, addrs)
		}
	}
	if addrs := got.Routed[uint32(egress.Attrs().Index)]; !slices.Equal(addrs, []netip.Addr{netip.MustParseAddr("169.254.172.5")}) {
		t.Errorf("routed to a second veth are %v", addrs)
	}
	if len(got.Routed) != 3 {
		t.Errorf("routed %v", got.Routed)
	}
	namespaces := got.Namespaces
	if own, ok := namespaces[uint32(index(pod))]; !ok || namespaces[uint32(egress.Attrs().Index)] != own || namespaces[uint32(index(ruled))] == own || len(namespaces) != 3 {
		t.Errorf("namespaces of veths: %v", namespaces)
	}
	want := []uint32{uint32(index(router)), uint32(index(outside)), uint32(uplinkBridge.Attrs().Index)}
	slices.Sort(want)
	if !slices.Equal(got.Uplinks, want) {
		t.Errorf("uplinks %v, want %v", got.Uplinks, want)
	}
	if again := readInterfaces(n); !again.Equal(got) {
		t.Errorf("read again: %v, before %v", again, got)
	}
}

// A list of links that changes while it is read is read again.
func TestReadInterfacesThatChange(t *testing.T) {
	n := netnstest.NewRouter(t)
	for i := range 40 {
		n.AddBridge(fmt.Sprint("br", i)) // more than the kernel tells at a time
	}
	done, stopped := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-done:
				close(stopped)
				return
			default:
			}
			l := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "comes"}}
			if err := errors.Join(n.Link.LinkAdd(l), n.Link.LinkDel(l)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 100 {
		readInterfaces(n)
	}
	close(done)
	check(t, <-stopped)
}

func TestWatchInterfaces(t *testing.T) {
	n := netnstest.NewRouter(t)
	ctx, cancel := context.WithCancel(context.Background())
	changed, done := make(chan struct{}, 1), make(chan error)
	go n.Do(func() error {
		done <- inspect.WatchInterfaces(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		return nil
	})
	deadline := time.After(netnstest.Patience)
	for i := byte(1); ; i++ { // until the watch has begun
		p := n.AddPod(netip.AddrFrom4([4]byte{10, 9, 0, i}).String(), netip.AddrFrom16([16]byte{0: 0xfd, 15: i}).String())
		select {
		case <-changed:
			cancel()
			check(t, <-done)
			if readInterfaces(n).Routed[uint32(p.Host.Attrs().Index)] == nil {
				t.Error("a pod's interface is not seen")
			}
			return
		case <-deadline:
			t.Fatal("no change was seen")
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// New ends of a tunnel are seen, and entries of a bridge or neighbours are not waited for.
func TestWatchTunnels(t *testing.T) {
	n := netnstest.NewRouter(t)
	check(t, n.Link.LinkAdd(&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, Port: 8472, SrcAddr: net.IPv4(127, 0, 0, 1)}))
	link, err := n.Link.LinkByName("flannel.1")
	check(t, err)
	check(t, n.Link.LinkSetUp(link))
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	seen, done := make(chan *inspect.Tunnels, 100), make(chan error)
	go n.Do(func() error {
		done <- inspect.WatchTunnels(ctx, func() {
			if tunnels, err := inspect.ReadTunnels(); err == nil {
				seen <- tunnels
			}
		})
		return nil
	})
	deadline := time.After(netnstest.Patience)
	for i := byte(1); ; i++ { // until the watch has begun
		check(t, n.Link.NeighAppend(&netlink.Neigh{
			LinkIndex: link.Attrs().Index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT,
			HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 0, i}, IP: net.IPv4(192, 0, 2, i),
		}))
		select {
		case tunnels := <-seen:
			cancel()
			check(t, <-done)
			if !slices.Equal(tunnels.Ports, []uint16{8472}) || !slices.Contains(tunnels.Ends, netip.MustParsePrefix("192.0.2.1/32")) {
				t.Errorf("seen %+v", tunnels)
			}
			return
		case <-deadline:
			t.Fatal("no change was seen")
		case <-time.After(10 * time.Millisecond):
		}
	}
}
