// Package netnstest builds networks of namespaces for tests, inside the test's own process.
//
// A namespace has no name and no mount: it is a file descriptor, and is gone with it.
package netnstest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Namespace is a network namespace with its loopback up.
type Namespace struct {
	t      testing.TB
	handle netns.NsHandle
	// Link configures the namespace from any thread.
	Link *netlink.Handle
}

// New makes a namespace that lives as long as the test.
func New(t testing.TB) *Namespace {
	t.Helper()
	n := &Namespace{t: t}
	onThread(t, func() error {
		handle, err := netns.New()
		n.handle = handle
		return err
	})
	link, err := netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
	must(t, err)
	n.Link = link
	t.Cleanup(func() {
		link.Close()
		_ = n.handle.Close()
	})
	must(t, n.Link.LinkSetUp(n.link("lo")))
	return n
}

// Path is a path of the namespace for other processes, as long as the test runs.
func (n *Namespace) Path() string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(n.handle)) }

// onThread runs f on a thread that ends with it, so that changes that f makes to the thread affect no other test.
func onThread(t testing.TB, f func() error) {
	t.Helper()
	done := make(chan error)
	go func() {
		defer close(done)      // also where f ends the test, and with it this goroutine
		runtime.LockOSThread() // and never unlocked: the thread goes with the goroutine
		done <- f()
	}()
	must(t, <-done)
}

// Do runs f in the namespace. Sockets that f opens stay there; goroutines that f starts do not run there.
func (n *Namespace) Do(f func() error) {
	n.t.Helper()
	onThread(n.t, func() error {
		if err := netns.Set(n.handle); err != nil {
			return err
		}
		return f()
	})
}

// Sysctl sets net.<key>, with slashes.
func (n *Namespace) Sysctl(key, value string) {
	n.t.Helper()
	n.Do(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(value), 0o644) })
}

func (n *Namespace) link(name string) netlink.Link {
	n.t.Helper()
	l, err := n.Link.LinkByName(name)
	if err != nil {
		n.t.Fatalf("link %s: %v", name, err)
	}
	return l
}

// NewRouter makes a namespace that forwards both families, as a node does.
func NewRouter(t testing.TB) *Namespace {
	t.Helper()
	r := New(t)
	r.Forward()
	return r
}

// Forward makes the namespace forward both families.
func (n *Namespace) Forward() {
	n.t.Helper()
	n.Sysctl("ipv4/ip_forward", "1")
	n.Sysctl("ipv6/conf/all/forwarding", "1")
}

// The pods' gateways, as Amazon's VPC CNI has them: addresses that no link bears, with static neighbours.
var (
	gateway4 = netip.MustParseAddr("169.254.1.1")
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Pod is a namespace behind a routed veth of a router, with host addresses only.
type Pod struct {
	*Namespace
	V4, V6 netip.Addr
	// Host is the router's end of the veth.
	Host netlink.Link
}

// Addr of a family.
func (p *Pod) Addr(v6 bool) netip.Addr {
	if v6 {
		return p.V6
	}
	return p.V4
}

var veths atomic.Uint32

// AddPod makes a pod behind a routed veth of the router.
func (n *Namespace) AddPod(v4, v6 string) *Pod {
	n.t.Helper()
	return n.AddPodAt(0, v4, v6)
}

// RemovePod takes a pod's veth away, as a CNI does when a pod is deleted: its index and its addresses are
// free.
func (n *Namespace) RemovePod(p *Pod) {
	n.t.Helper()
	must(n.t, n.Link.LinkDel(p.Host))
}

// AddPodAt makes a pod whose veth has this index on the router; 0: the next one.
func (n *Namespace) AddPodAt(index int, v4, v6 string) *Pod {
	n.t.Helper()
	p := n.addVeth(index, v4, v6)
	eth0 := p.link("eth0")
	p.route(eth0, p.Host.Attrs().HardwareAddr, p.V4, gateway4)
	p.route(eth0, p.Host.Attrs().HardwareAddr, p.V6, gateway6)
	for _, a := range []netip.Addr{p.V4, p.V6} {
		must(n.t, n.Link.RouteAdd(&netlink.Route{LinkIndex: p.Host.Attrs().Index, Dst: host(a), Scope: netlink.SCOPE_LINK}))
		must(n.t, n.Link.NeighSet(&netlink.Neigh{
			LinkIndex: p.Host.Attrs().Index, IP: a.AsSlice(), HardwareAddr: eth0.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT,
		}))
	}
	return p
}

// AddInterface gives a pod one more routed veth, with an address of the node's end as its gateway, as the ptp plugin and the Amazon VPC CNI's
// egress plugin do. The pod sends by it what is for these destinations. It returns the router's end.
func (n *Namespace) AddInterface(p *Pod, name string, addr, gateway netip.Addr, to ...netip.Addr) netlink.Link {
	n.t.Helper()
	link := n.addEnd(p, name)
	hostName := link.Attrs().Name
	n.Sysctl("ipv6/conf/"+hostName+"/accept_dad", "0")
	p.Sysctl("ipv6/conf/"+name+"/accept_dad", "0")
	must(n.t, n.Link.LinkSetUp(link))
	must(n.t, p.Link.LinkSetUp(p.link(name)))
	n.awaitUp(hostName)
	p.awaitUp(name)
	n.AddAddress(link, netip.PrefixFrom(gateway, gateway.BitLen()).String())
	must(n.t, n.Link.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: host(addr), Scope: netlink.SCOPE_LINK}))
	inside := p.link(name)
	p.AddAddress(inside, netip.PrefixFrom(addr, addr.BitLen()).String())
	must(n.t, p.Link.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Dst: host(gateway), Scope: netlink.SCOPE_LINK}))
	for _, destination := range to {
		must(n.t, p.Link.RouteAdd(&netlink.Route{LinkIndex: inside.Attrs().Index, Dst: host(destination), Gw: gateway.AsSlice(), Src: addr.AsSlice()}))
	}
	return link
}

// AddPort gives a pod one more veth, whose other end is a port of a bridge. It returns that end.
func (n *Namespace) AddPort(p *Pod, bridge netlink.Link, name string) netlink.Link {
	n.t.Helper()
	link := n.addEnd(p, name)
	must(n.t, n.Link.LinkSetMaster(link, bridge))
	return link
}

func (n *Namespace) addEnd(p *Pod, name string) netlink.Link {
	n.t.Helper()
	hostName := fmt.Sprintf("eni%d", veths.Add(1))
	must(n.t, n.Link.LinkAdd(&netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: hostName, MTU: 1500}, PeerName: name, PeerNamespace: netlink.NsFd(p.handle),
	}))
	return n.link(hostName)
}

// MoveTo makes a link and moves it into a pod.
func (n *Namespace) MoveTo(p *Pod, l netlink.Link) {
	n.t.Helper()
	must(n.t, n.Link.LinkAdd(l))
	must(n.t, n.Link.LinkSetNsFd(n.link(l.Attrs().Name), int(p.handle)))
}

// AddBridge makes a bridge for AddBridgedPod.
func (n *Namespace) AddBridge(name string) netlink.Link {
	n.t.Helper()
	must(n.t, n.Link.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	bridge := n.link(name)
	must(n.t, n.Link.LinkSetUp(bridge))
	return bridge
}

// AddBridgedPod makes a pod on a bridge. Pods of one bridge reach each other directly if their /24s and /64s
// are the same.
func (n *Namespace) AddBridgedPod(bridge netlink.Link, v4, v6 string) *Pod {
	n.t.Helper()
	p := n.addVeth(0, v4, v6)
	must(n.t, n.Link.LinkSetMaster(p.Host, bridge))
	for _, a := range []struct {
		addr netip.Addr
		bits int
	}{{p.V4, 24}, {p.V6, 64}} {
		p.AddAddress(p.link("eth0"), netip.PrefixFrom(a.addr, a.bits).String())
	}
	return p
}

func (n *Namespace) addVeth(index int, v4, v6 string) *Pod {
	t := n.t
	t.Helper()
	p := &Pod{Namespace: New(t), V4: netip.MustParseAddr(v4), V6: netip.MustParseAddr(v6)}
	name := fmt.Sprintf("eni%d", veths.Add(1))
	must(t, n.Link.LinkAdd(&netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: name, MTU: 1500, Index: index},
		PeerName:      "eth0",
		PeerNamespace: netlink.NsFd(p.handle),
	}))
	p.Host = n.link(name)
	n.Sysctl("ipv6/conf/"+name+"/accept_dad", "0")
	p.Sysctl("ipv6/conf/eth0/accept_dad", "0")
	must(t, n.Link.LinkSetUp(p.Host))
	must(t, p.Link.LinkSetUp(p.link("eth0")))
	n.awaitUp(name)
	p.awaitUp("eth0")
	return p
}

// awaitUp waits until the link really sends: the kernel throws packets away until its linkwatch has come by.
func (n *Namespace) awaitUp(name string) {
	n.t.Helper()
	n.await("link "+name, func() bool { return n.link(name).Attrs().OperState == netlink.OperUp })
}

func (p *Pod) route(eth0 netlink.Link, router net.HardwareAddr, addr, gateway netip.Addr) {
	p.t.Helper()
	index := eth0.Attrs().Index
	p.AddAddress(eth0, netip.PrefixFrom(addr, addr.BitLen()).String())
	must(p.t, p.Link.NeighSet(&netlink.Neigh{LinkIndex: index, IP: gateway.AsSlice(), HardwareAddr: router, State: netlink.NUD_PERMANENT}))
	if gateway.Is4() {
		must(p.t, p.Link.RouteAdd(&netlink.Route{LinkIndex: index, Dst: host(gateway), Scope: netlink.SCOPE_LINK}))
	}
	must(p.t, p.Link.RouteAdd(&netlink.Route{LinkIndex: index, Gw: gateway.AsSlice(), Dst: everything(gateway)}))
}

// RouteVia leads to a pod that is behind another pod, which forwards.
func (n *Namespace) RouteVia(p, router *Pod) {
	n.t.Helper()
	for _, v6 := range []bool{false, true} {
		must(n.t, n.Link.RouteAdd(&netlink.Route{
			LinkIndex: router.Host.Attrs().Index, Dst: host(p.Addr(v6)), Gw: router.Addr(v6).AsSlice(), Flags: int(netlink.FLAG_ONLINK),
		}))
	}
}

// AddAddress gives a link of this namespace an address, and returns when the namespace takes packets to it.
func (n *Namespace) AddAddress(l netlink.Link, prefix string) {
	n.t.Helper()
	p := netip.MustParsePrefix(prefix)
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}, Flags: unix.IFA_F_NODAD}
	must(n.t, n.Link.AddrAdd(l, addr))
	n.await("address "+prefix, func() bool {
		routes, err := n.Link.RouteGet(addr.IP)
		return err == nil && len(routes) == 1 && routes[0].Type == unix.RTN_LOCAL
	})
}

// await polls until the kernel has done what it does in its own time.
func (n *Namespace) await(what string, done func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(Patience); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s is not ready within %v", what, Patience)
		}
	}
}

// SetRouteMTU limits the packets that this namespace forwards to a pod of its own. Its veth keeps its MTU: an end takes no packet that is larger than its
// own MTU, unless it is one of several segments, and sends no error.
func (n *Namespace) SetRouteMTU(p *Pod, mtu int) {
	n.t.Helper()
	for _, v6 := range []bool{false, true} {
		must(n.t, n.Link.RouteReplace(&netlink.Route{LinkIndex: p.Host.Attrs().Index, Dst: host(p.Addr(v6)), MTU: mtu}))
	}
}

func host(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func everything(like netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, like.BitLen()/8), Mask: net.CIDRMask(0, like.BitLen())}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
