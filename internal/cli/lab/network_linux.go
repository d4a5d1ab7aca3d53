package lab

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// gateway is the pods' router, as Amazon's VPC CNI has it: an address that no link bears, with a static neighbour.
var gateway = map[bool]netip.Addr{true: router, false: netip.MustParseAddr("fe80::1")}

// A host is a network namespace behind a veth of the router, which is the process's own namespace.
type host struct {
	addresses []netip.Addr
	handle    netns.NsHandle
	index     int // of the router's end
	// zone is what the host answers questions at UDP 53 from, if it is the resolver: addresses by name.
	zone map[string][]netip.Addr
}

// makeRouter makes the process's namespace forward.
func makeRouter() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte("1"), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// onThread runs f on a thread that ends with it, so that the thread may be in any namespace.
func onThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

// do runs f in the host's namespace. Sockets that f opens stay there.
func (h *host) do(f func() error) error {
	return onThread(func() error {
		if err := netns.Set(h.handle); err != nil {
			return err
		}
		return f()
	})
}

// addHost makes the n-th host.
func addHost(n int, addresses []netip.Addr) (*host, error) {
	h := &host{addresses: addresses}
	if err := onThread(func() (err error) {
		h.handle, err = netns.New()
		return err
	}); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	name := fmt.Sprintf("lab%d", n)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.handle)}
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("make a veth: %w", err)
	}
	inside, err := netlink.NewHandleAt(h.handle)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	outer, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	inner, err := inside.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	h.index = outer.Attrs().Index
	lo, err := inside.LinkByName("lo")
	if err != nil {
		return nil, err
	}
	for _, up := range []func() error{
		func() error { return inside.LinkSetUp(lo) },
		func() error { return inside.LinkSetUp(inner) },
		func() error { return netlink.LinkSetUp(outer) },
	} {
		if err := up(); err != nil {
			return nil, err
		}
	}
	for _, a := range addresses {
		if err := connect(inside, inner, outer, a); err != nil {
			return nil, fmt.Errorf("give %s to a network namespace: %w", a, err)
		}
	}
	return h, awaitUp(name)
}

// connect gives an address to the inner end, and both ends routes and neighbours.
func connect(inside *netlink.Handle, inner, outer netlink.Link, a netip.Addr) error {
	gw := gateway[a.Is4()]
	if err := inside.AddrAdd(inner, &netlink.Addr{IPNet: single(a), Flags: unix.IFA_F_NODAD}); err != nil {
		return err
	}
	if err := inside.NeighSet(&netlink.Neigh{LinkIndex: inner.Attrs().Index, IP: gw.AsSlice(), HardwareAddr: outer.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT}); err != nil {
		return err
	}
	if gw.Is4() {
		if err := inside.RouteReplace(&netlink.Route{LinkIndex: inner.Attrs().Index, Dst: single(gw), Scope: netlink.SCOPE_LINK}); err != nil {
			return err
		}
	}
	all := &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
	if err := inside.RouteReplace(&netlink.Route{LinkIndex: inner.Attrs().Index, Gw: gw.AsSlice(), Dst: all}); err != nil {
		return err
	}
	if err := netlink.RouteReplace(&netlink.Route{LinkIndex: outer.Attrs().Index, Dst: single(a), Scope: netlink.SCOPE_LINK}); err != nil {
		return err
	}
	return netlink.NeighSet(&netlink.Neigh{LinkIndex: outer.Attrs().Index, IP: a.AsSlice(), HardwareAddr: inner.Attrs().HardwareAddr, State: netlink.NUD_PERMANENT})
}

func single(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

// upWithin is how long the kernel may take to bring a link up: it throws packets away until then.
const upWithin = 10 * time.Second

func awaitUp(name string) error {
	for deadline := time.Now().Add(upWithin); ; time.Sleep(time.Millisecond) {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("link %s does not come up", name)
		}
	}
}
