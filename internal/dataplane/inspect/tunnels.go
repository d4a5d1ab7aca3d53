package inspect

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	vnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Tunnels are what this node decapsulates: what is sent to it by a protocol or to a UDP port of this list is
// unpacked by the kernel, and the inner packet comes in by a device of the tunnel. All lists are ascending.
type Tunnels struct {
	// Protocols of IP, by number.
	Protocols []uint8
	// Ports of UDP.
	Ports []uint16
	// Devices are the indexes of the tunnels' interfaces.
	Devices []uint32
	// Ends are the addresses of other hosts that the tunnels lead to.
	Ends []netip.Prefix
	// Endless are the names of devices that have no ends in the kernel: each packet brings its own, or is sent
	// to a multicast address.
	Endless []string
}

// Equal reports whether both are the same.
func (t *Tunnels) Equal(other *Tunnels) bool {
	return slices.Equal(t.Protocols, other.Protocols) && slices.Equal(t.Ports, other.Ports) && slices.Equal(t.Devices, other.Devices) &&
		slices.Equal(t.Ends, other.Ends) && slices.Equal(t.Endless, other.Endless)
}

// Empty reports whether the node decapsulates nothing.
func (t *Tunnels) Empty() bool { return len(t.Protocols) == 0 && len(t.Ports) == 0 }

// ReadTunnels reads them in the calling thread's network namespace.
func ReadTunnels() (*Tunnels, error) {
	links, err := steady(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	t := newTunnelReader(links)
	if t.ports, err = fouPorts(); err != nil {
		return nil, err
	}
	if t.hasVXLAN {
		if t.forwarding, err = steady(func() ([]netlink.Neigh, error) { return netlink.NeighList(0, unix.AF_BRIDGE) }); err != nil {
			return nil, fmt.Errorf("list forwarding entries: %w", err)
		}
	}
	if t.hasRouted {
		if t.routes, err = allRoutes(); err != nil {
			return nil, err
		}
	}
	return t.read(), nil
}

// protocolsOf are the protocols that a kind of device decapsulates, of IPv4 and IPv6 alike (IANA's numbers):
// 4 IPv4, 41 IPv6, 47 GRE, 137 MPLS.
var protocolsOf = map[string][]uint8{
	"ipip":      {4, 137},
	"sit":       {4, 41, 137},
	"ip6tnl":    {4, 41, 137},
	"gre":       {47},
	"gretap":    {47},
	"erspan":    {47},
	"ip6gre":    {47},
	"ip6gretap": {47},
	"ip6erspan": {47},
}

// tunnelReader puts Tunnels together from what was read.
type tunnelReader struct {
	links      []netlink.Link
	forwarding []netlink.Neigh // of VXLAN devices, and of bridges
	routes     []netlink.Route
	ports      []uint16 // of FOU and GUE

	hasVXLAN, hasRouted bool
}

// newTunnelReader keeps the devices that are up: others decapsulate nothing. Kernels have one of each kind that
// is always there and always down.
func newTunnelReader(links []netlink.Link) *tunnelReader {
	t := &tunnelReader{}
	for _, l := range links {
		if l.Attrs().Flags&net.FlagUp == 0 {
			continue
		}
		switch kind := l.Type(); {
		case kind == "vxlan":
			t.hasVXLAN = true
		case kind == "geneve", kind == "bareudp":
		case protocolsOf[kind] != nil:
			t.hasRouted = true
		default:
			continue
		}
		t.links = append(t.links, l)
	}
	return t
}

func (t *tunnelReader) read() *Tunnels {
	out := &Tunnels{Ports: t.ports}
	for _, l := range t.links {
		out.Protocols = append(out.Protocols, protocolsOf[l.Type()]...)
		out.Devices = append(out.Devices, uint32(l.Attrs().Index))
		ports, ends, known := t.device(l)
		out.Ports = append(out.Ports, ports...)
		out.Ends = append(out.Ends, ends...)
		if !known {
			out.Endless = append(out.Endless, l.Attrs().Name)
		}
	}
	out.Protocols = sortedSet(out.Protocols, func(a, b uint8) int { return int(a) - int(b) })
	out.Ports = sortedSet(out.Ports, func(a, b uint16) int { return int(a) - int(b) })
	out.Ends = sortedSet(out.Ends, netip.Prefix.Compare)
	slices.Sort(out.Devices)
	slices.Sort(out.Endless)
	return out
}

func sortedSet[T comparable](list []T, compare func(a, b T) int) []T {
	slices.SortFunc(list, compare)
	return slices.Compact(list)
}

// device returns the UDP ports of a device and its ends, and whether these are all.
func (t *tunnelReader) device(l netlink.Link) (ports []uint16, ends []netip.Prefix, known bool) {
	// Where packets of this kind are packed once more, into UDP: the other end takes them at this port.
	packed := func(kind, port uint16) {
		if kind != 0 && port != 0 {
			ports = append(ports, port)
		}
	}
	routed := func(remote net.IP, endless bool) {
		ends, known = t.routed(l, remote)
		known = known && !endless
	}
	switch d := l.(type) {
	case *netlink.Vxlan:
		ports = []uint16{uint16(d.Port)}
		ends, known = t.forwardedTo(d)
	case *netlink.Geneve:
		ports = []uint16{d.Dport}
		ends, known = endAt(d.Remote)
		known = known && len(ends) > 0 && !d.FlowBased
	case *netlink.BareUDP: // its routes bring the ends
		ports = []uint16{d.Port}
	case *netlink.Iptun:
		routed(d.Remote, d.FlowBased)
		packed(d.EncapType, d.EncapDport)
	case *netlink.Ip6tnl:
		routed(d.Remote, d.FlowBased)
		packed(d.EncapType, d.EncapDport)
	case *netlink.Sittun:
		routed(d.Remote, false)
		packed(d.EncapType, d.EncapDport)
	case *netlink.Gretun:
		routed(d.Remote, d.FlowBased)
		packed(d.EncapType, d.EncapDport)
	case *netlink.Gretap:
		routed(d.Remote, d.FlowBased)
		packed(d.EncapType, d.EncapDport)
	}
	return ports, ends, known
}

// endAt is the one end of a device; none for an address that is not set, and false for a multicast address.
func endAt(remote net.IP) (ends []netip.Prefix, known bool) {
	addr, ok := netip.AddrFromSlice(remote)
	addr = addr.Unmap()
	switch {
	case !ok || addr.IsUnspecified():
		return nil, true
	case addr.IsMulticast():
		return nil, false
	}
	return []netip.Prefix{netip.PrefixFrom(addr, addr.BitLen())}, true
}

// routed are the ends of a device without ports: its remote address, or else the gateways of the routes over it.
func (t *tunnelReader) routed(l netlink.Link, remote net.IP) (ends []netip.Prefix, known bool) {
	if ends, known = endAt(remote); !known || len(ends) > 0 {
		return ends, known
	}
	add := func(index int, gateway net.IP) {
		if index == l.Attrs().Index {
			end, _ := endAt(gateway)
			ends = append(ends, end...)
		}
	}
	for i := range t.routes {
		add(t.routes[i].LinkIndex, t.routes[i].Gw)
		for _, hop := range t.routes[i].MultiPath {
			add(hop.LinkIndex, hop.Gw)
		}
	}
	return ends, true
}

// forwardedTo are the ends of a VXLAN device: its default, and those of its forwarding entries that it did not
// learn from packets.
func (t *tunnelReader) forwardedTo(d *netlink.Vxlan) (ends []netip.Prefix, known bool) {
	ends, known = endAt(d.Group)
	for i := range t.forwarding {
		n := &t.forwarding[i]
		if n.LinkIndex != d.Index || n.State&(netlink.NUD_PERMANENT|netlink.NUD_NOARP) == 0 {
			continue
		}
		end, unicast := endAt(n.IP)
		ends, known = append(ends, end...), known && unicast
	}
	return ends, known && !d.FlowBased
}

// fouPorts are the ports of UDP whose packets the kernel takes for those of another protocol.
func fouPorts() ([]uint16, error) {
	// To ask for one family would load the module.
	families, err := steady(genericFamilies)
	if err != nil {
		return nil, fmt.Errorf("list families of generic netlink: %w", err)
	}
	if !slices.Contains(families, netlink.FOU_GENL_NAME) {
		return nil, nil
	}
	list, err := steady(func() ([]netlink.Fou, error) { return netlink.FouList(unix.AF_UNSPEC) })
	if err != nil {
		return nil, fmt.Errorf("list ports of FOU: %w", err)
	}
	var ports []uint16
	for _, f := range list {
		ports = append(ports, uint16(f.Port))
	}
	return ports, nil
}

// genericHeader is struct genlmsghdr of linux/genetlink.h. (Genlmsg of the netlink package has half of its size, and is
// sent with what is behind it in memory.)
type genericHeader [4]byte

// Len is the size of the header.
func (h genericHeader) Len() int { return len(h) }

// Serialize returns the bytes of the header.
func (h genericHeader) Serialize() []byte { return h[:] }

// genericFamilies are the names of the families of generic netlink.
func genericFamilies() ([]string, error) {
	request := vnl.NewNetlinkRequest(unix.GENL_ID_CTRL, unix.NLM_F_DUMP)
	request.AddData(genericHeader{unix.CTRL_CMD_GETFAMILY, 2})
	messages, err := request.Execute(unix.NETLINK_GENERIC, 0)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, m := range messages {
		attributes, err := vnl.ParseRouteAttr(m[min(len(m), genericHeader{}.Len()):])
		if err != nil {
			return nil, err
		}
		for _, a := range attributes {
			if a.Attr.Type == unix.CTRL_ATTR_FAMILY_NAME {
				names = append(names, unix.ByteSliceToString(a.Value))
			}
		}
	}
	return names, nil
}

// Takes reports whether the end of a tunnel may decapsulate what is sent to it so. Port is 0 for a protocol
// without ports.
func (t *Tunnels) Takes(protocol uint8, destination netip.AddrPort) bool {
	if !slices.Contains(t.Protocols, protocol) && (protocol != unix.IPPROTO_UDP || !slices.Contains(t.Ports, destination.Port())) {
		return false
	}
	return slices.ContainsFunc(t.Ends, func(end netip.Prefix) bool { return end.Contains(destination.Addr()) })
}

// AddEnds adds ends that the kernel does not have. If there are any, no device is without ends.
func (t *Tunnels) AddEnds(ends []netip.Prefix) {
	if len(ends) == 0 || t.Empty() {
		return
	}
	t.Ends = sortedSet(append(t.Ends, ends...), netip.Prefix.Compare)
	t.Endless = nil
}

// Warnings are about tunnels whose ends are not known.
func (t *Tunnels) Warnings() []Warning {
	if len(t.Endless) == 0 {
		return nil
	}
	return []Warning{Warning(fmt.Sprintf("the kernel does not have the ends of tunnels %s: an encapsulated packet that comes from outside the node "+
		"passes from any address that is no pod's; start the agent with --tunnel-ends", strings.Join(t.Endless, ", ")))}
}

// WatchTunnels calls changed after tunnels may have changed in the calling thread's network namespace, and now
// and then without that, until the context is done. The kernel does not report new ports of FOU.
func WatchTunnels(ctx context.Context, changed func()) error {
	const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE | unix.RTMGRP_NEIGH
	err := watch(ctx, groups, changed, func(m nl.Message) bool {
		isNeighbour := m.Header.Type == unix.RTM_NEWNEIGH || m.Header.Type == unix.RTM_DELNEIGH
		return !isNeighbour || len(m.Data) > 0 && m.Data[0] == unix.AF_BRIDGE
	})
	if err != nil {
		return fmt.Errorf("watch tunnels: %w", err)
	}
	return nil
}
