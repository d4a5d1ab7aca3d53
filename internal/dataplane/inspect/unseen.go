package inspect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/node"
)

// ReadUnseen reads the interfaces whose traffic does not pass the dataplane's hooks with an address that routes lead to, by the network
// namespace that they are in: those that veths lead into from the calling thread's. A namespace without a veth is not found.
func ReadUnseen() (map[node.NetNS][]node.Link, error) {
	links, err := steady(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	bridges := map[int]bool{}
	for _, l := range links {
		bridges[l.Attrs().Index] = l.Type() == "bridge"
	}
	out := map[node.NetNS][]node.Link{}
	read := map[node.NetNS]bool{}
	for _, l := range links {
		a := l.Attrs()
		if l.Type() != "veth" || a.NetNsID < 0 {
			continue
		}
		id := node.NetNS(a.NetNsID)
		if bridges[a.MasterIndex] {
			out[id] = append(out[id], node.Link{Name: a.Name, Kind: "bridge port"})
		}
		if read[id] {
			continue
		}
		read[id] = true
		inside, err := linksIn(id)
		if err != nil {
			return nil, err
		}
		for _, l := range inside {
			if isUnseen(l) {
				out[id] = append(out[id], node.Link{Name: l.Attrs().Name, Kind: l.Type()})
			}
		}
	}
	return out, nil
}

// isUnseen reports whether a link of a pod's network namespace leads out of it past the node's network stack: it is a physical device, or it
// has its lower device in another namespace.
func isUnseen(l netlink.Link) bool {
	switch a := l.Attrs(); l.Type() {
	case "veth", "netkit":
		return false
	case "device":
		return a.Flags&net.FlagLoopback == 0
	default:
		return a.NetNsID >= 0
	}
}

// linksIn lists the links of another network namespace; none if it is gone.
func linksIn(id node.NetNS) ([]netlink.Link, error) {
	c, err := nl.Dial(unix.NETLINK_ROUTE, nil)
	if err != nil {
		return nil, fmt.Errorf("open netlink's socket: %w", err)
	}
	defer func() { _ = c.Close() }()
	target, err := nl.MarshalAttributes([]nl.Attribute{{Type: unix.IFLA_TARGET_NETNSID, Data: binary.NativeEndian.AppendUint32(nil, uint32(id))}})
	if err != nil {
		return nil, err
	}
	messages, err := c.Execute(nl.Message{
		Header: nl.Header{Type: unix.RTM_GETLINK, Flags: nl.Request | nl.Dump},
		Data:   append(make([]byte, unix.SizeofIfInfomsg), target...),
	})
	if errors.Is(err, unix.EINVAL) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the links of network namespace %d: %w", id, err)
	}
	var out []netlink.Link
	for _, m := range messages {
		l, err := netlink.LinkDeserialize(nil, m.Data)
		if err != nil {
			return nil, fmt.Errorf("read a link of network namespace %d: %w", id, err)
		}
		out = append(out, l)
	}
	return out, nil
}
