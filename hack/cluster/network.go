package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

const (
	netnsDir = "/run/netns" // where ip-netns(8) looks for names
	lan      = "br0"        // the bridge in the control plane's namespace that joins the nodes
	uplink   = "eth0"       // a node's interface on it
)

func (c *Cluster) controlPlaneNetns() string { return c.id() + "-cp" }

// setUpControlPlaneNetwork makes the network namespace of the control plane with
// the LAN's bridge. Its addresses are the nodes' default gateway.
func (c *Cluster) setUpControlPlaneNetwork() error {
	return inNewNetns(c.controlPlaneNetns(), func() error {
		if err := enableForwarding(); err != nil {
			return err
		}
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: lan}}); err != nil {
			return fmt.Errorf("add bridge %s: %w", lan, err)
		}
		// A VPC's router sends no redirects: nodes leave it to deliver packets between pods.
		if err := setSysctl("net/ipv4/conf/all/send_redirects", "0"); err != nil {
			return err
		}
		return configure(lan, ofFamilies(c.lanFamilies(), controlPlane4, controlPlane6)...)
	})
}

// setUpNodeNetwork makes the node's network namespace, joins it to the LAN by a
// veth and routes the pods of every node through that node.
func (n node) setUpNodeNetwork() error {
	err := inNewNetns(n.netns(), func() error {
		// New interfaces, the pods' veths, take their settings from "default".
		if err := enableForwarding(); err != nil {
			return err
		}
		return errors.Join(
			setSysctl("net/ipv4/conf/all/rp_filter", "0"),
			setSysctl("net/ipv6/conf/default/accept_dad", "0"),
		)
	})
	if err != nil {
		return err
	}
	h, err := netns.GetFromName(n.netns())
	if err != nil {
		return err
	}
	defer h.Close()
	err = inNetns(n.c.controlPlaneNetns(), func() error {
		if err := plug(n.name(), uplink, int(h)); err != nil {
			return err
		}
		if n.c.CNI != cniVPC {
			return n.routePods()
		}
		if len(n.enis()) > 1 {
			if err := plug(n.name()+secondUplink, secondUplink, int(h)); err != nil {
				return err
			}
		}
		return n.routeENIs()
	})
	if err != nil {
		return fmt.Errorf("network of %s: %w", n.name(), err)
	}
	return inNetns(n.netns(), func() error {
		if n.c.CNI == cniVPC {
			if err := n.setUpVPC(); err != nil {
				return err
			}
		}
		families := n.c.lanFamilies()
		if err := configure(uplink, ofFamilies(families, n.address4(), n.address6())...); err != nil {
			return err
		}
		var err error
		gateways := ofFamilies(families, controlPlane4, controlPlane6)
		for i, everything := range ofFamilies(families, default4, default6) {
			err = errors.Join(err, addRoute(everything, gateways[i].Addr()))
		}
		switch n.c.CNI {
		case cniVPC: // the router knows the way
			return err
		case cniFlannel:
			return errors.Join(err, n.setUpFlannel())
		}
		for _, other := range n.c.nodes() {
			if other.index != n.index {
				err = errors.Join(err, other.routePods())
			}
		}
		return err
	})
}

// plug joins an interface of a node to the LAN, whose bridge is in the current network namespace.
func plug(port, name string, node int) error {
	bridge, err := netlink.LinkByName(lan)
	if err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: port, MasterIndex: bridge.Attrs().Index},
		PeerName:      name,
		PeerNamespace: netlink.NsFd(node),
	}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add veth %s: %w", port, err)
	}
	return configure(port)
}

var (
	default4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	default6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// routePods leads to the node's pods, from the current namespace.
func (n node) routePods() error {
	var err error
	addresses := n.addresses()
	for i, pods := range n.podCIDRs() {
		err = errors.Join(err, addRoute(pods, addresses[i].Addr()))
	}
	return err
}

// inNewNetns makes a named network namespace with its loopback up and calls f in it.
func inNewNetns(name string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return keepNetns(func() error {
		h, err := netns.NewNamed(name)
		if err != nil {
			return fmt.Errorf("make network namespace %s: %w", name, err)
		}
		if err := h.Close(); err != nil {
			return err
		}
		if err := configure("lo"); err != nil {
			return err
		}
		return f()
	})
}

// inNetns calls f in a named network namespace. f must start no goroutine that
// relies on it.
func inNetns(name string, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return keepNetns(func() error {
		h, err := netns.GetFromName(name)
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", name, err)
		}
		defer h.Close()
		if err := netns.Set(h); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", name, err)
		}
		return f()
	})
}

// keepNetns returns the thread to its network namespace after f. A thread that
// cannot return must not be used again: the caller's lock is doubled, which
// makes the runtime end the thread.
func keepNetns(f func() error) error {
	origin, err := netns.Get()
	if err != nil {
		return err
	}
	defer origin.Close()
	err = f()
	if back := netns.Set(origin); back != nil {
		runtime.LockOSThread()
		return errors.Join(err, fmt.Errorf("return to the network namespace: %w", back))
	}
	return err
}

// configure gives an interface of the current namespace its addresses and sets
// it up. IPv6 addresses are usable at once: no other host can have them.
func configure(name string, addresses ...netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	for _, address := range addresses {
		a := &netlink.Addr{IPNet: ipNet(address)}
		if address.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrAdd(link, a); err != nil {
			return fmt.Errorf("address %s on %s: %w", address, name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

func addRoute(to netip.Prefix, via netip.Addr) error {
	route := &netlink.Route{Dst: ipNet(to), Gw: via.AsSlice()}
	if err := netlink.RouteReplace(route); err != nil { // others keep theirs while a node restarts
		return fmt.Errorf("route to %s via %s: %w", to, via, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func enableForwarding() error {
	return errors.Join(
		setSysctl("net/ipv4/ip_forward", "1"),
		setSysctl("net/ipv6/conf/all/disable_ipv6", "0"),
		setSysctl("net/ipv6/conf/all/forwarding", "1"),
		setSysctl("net/ipv6/conf/default/forwarding", "1"),
	)
}

// setSysctl writes a setting below net/, where /proc shows each thread those of
// its network namespace.
func setSysctl(name, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644)
}

// removeNetns takes the names of the cluster's network namespaces away, which
// ends the namespaces unless a process is left in them. It returns warnings
// that name such processes.
func (c *Cluster) removeNetns() (warnings []string, err error) {
	paths, err := filepath.Glob(filepath.Join(netnsDir, c.id()+"-*"))
	if err != nil {
		return nil, err
	}
	users := netnsUsers()
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			for _, user := range users[st.Ino] {
				warnings = append(warnings, fmt.Sprintf("%s lives on in network namespace %s until it ends", user, filepath.Base(path)))
			}
		}
		// EINVAL: the file is there, but up was killed before it mounted the namespace on it.
		if e := unix.Unmount(path, unix.MNT_DETACH); e != nil && !errors.Is(e, unix.EINVAL) {
			err = errors.Join(err, fmt.Errorf("unmount %s: %w", path, e))
			continue
		}
		err = errors.Join(err, os.Remove(path))
	}
	return warnings, err
}

// netnsUsers lists the processes of the machine by the inode of their network namespace.
func netnsUsers() map[uint64][]string {
	users := map[uint64][]string{}
	paths, _ := filepath.Glob("/proc/[0-9]*/ns/net") // the pattern is well-formed
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			continue // it has ended, or is a kernel thread
		}
		pid := strings.Split(path, "/")[2]
		comm, _ := os.ReadFile(filepath.Join("/proc", pid, "comm"))
		users[st.Ino] = append(users[st.Ino], fmt.Sprintf("process %s (%s)", pid, strings.TrimSpace(string(comm))))
	}
	return users
}
