package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// AddOutside gives addresses to the host outside the pods, which is the nodes' default gateway.
func (c *Cluster) AddOutside(addresses []netip.Addr) error {
	pid, err := c.process("kube-apiserver")
	if err != nil {
		return err
	}
	namespace, err := netns.GetFromPid(pid)
	if err != nil {
		return fmt.Errorf("network namespace of process %d: %w", pid, err)
	}
	defer namespace.Close()
	handle, err := netlink.NewHandleAt(namespace)
	if err != nil {
		return err
	}
	defer handle.Close()
	loopback, err := handle.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, address := range addresses {
		mask := net.CIDRMask(address.BitLen(), address.BitLen())
		a := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: mask}, Flags: unix.IFA_F_NODAD}
		err = errors.Join(err, handle.AddrReplace(loopback, a))
	}
	return err
}
