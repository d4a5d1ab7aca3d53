package leftovers

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func (n *Node) ipsets() ([]Leftover, error) {
	sets, err := netlink.IpsetListAll()
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
			return nil, nil // this kernel has none
		}
		return nil, fmt.Errorf("list ipsets: %w", err)
	}
	var out []Leftover
	for _, s := range sets {
		if strings.HasPrefix(s.SetName, "cali") || strings.HasPrefix(s.SetName, "felix-") {
			out = append(out, Leftover{Kind: "ipset", Name: s.SetName, Detail: fmt.Sprintf("(%s)", s.TypeName), remove: func() error { return netlink.IpsetDestroy(s.SetName) }})
		}
	}
	slices.SortFunc(out, func(a, b Leftover) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// ownLinks are made by Calico's node agent only.
var ownLinks = []string{"vxlan.calico", "vxlan-v6.calico", "wireguard.cali", "wg-v6.cali", "bpfin.cali", "bpfout.cali", "bpfnatin", "bpfnatout"}

// workload is the host's end of a pod's interface.
var workload = regexp.MustCompile(`^cali[0-9a-f]{11}$`)

const tunl0 = "tunl0"

func isOwnLink(name string) bool {
	return slices.Contains(ownLinks, name) || workload.MatchString(name)
}

// isPods: the link leads into a pod's network namespace.
func isPods(link netlink.Link) bool {
	return workload.MatchString(link.Attrs().Name) && link.Attrs().NetNsID >= 0
}

func (n *Node) links() ([]Leftover, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	var out []Leftover
	for _, link := range links {
		name := link.Attrs().Name
		l := Leftover{Kind: "link", Name: name, Detail: "(" + link.Type() + ")"}
		switch {
		case name == tunl0:
			found, err := n.tunnel(link)
			if err != nil {
				return out, err
			}
			out = append(out, found...)
			continue
		case !isOwnLink(name):
			continue
		case isPods(link):
			l.Kept = "it leads into a pod's network namespace: drain the node, or delete the pod"
		default:
			l.remove = func() error { return gone(netlink.LinkDel(link)) }
		}
		out = append(out, l)
	}
	return out, nil
}

// gone: the other end of a pair went first, or a route went with its link.
func gone(err error) error {
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

// tunnel is the kernel's own device for IPIP, which other programs may use, too: only addresses of Calico's pools are its.
func (n *Node) tunnel(link netlink.Link) ([]Leftover, error) {
	addresses, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", tunl0, err)
	}
	var out []Leftover
	for _, a := range addresses {
		addr, _ := netip.AddrFromSlice(a.IP.To4())
		l := Leftover{Kind: "address", Name: a.IPNet.String(), Detail: "of " + tunl0}
		if n.inPools(netip.PrefixFrom(addr, 32)) {
			l.remove = func() error { return netlink.AddrDel(link, &a) }
		} else {
			l.Kept = "others use the device too: give --pod-cidr if the address is of Calico's pools"
		}
		out = append(out, l)
	}
	return out, nil
}

func (n *Node) inPools(p netip.Prefix) bool {
	return slices.ContainsFunc(n.Pools, func(pool netip.Prefix) bool { return pool.Bits() <= p.Bits() && pool.Contains(p.Addr()) })
}

// felix is the protocol of the routes that Calico's node agent makes; no one else is known to use the number. BIRD's are Calico's only
// where BIRD is.
const felix = 80

// routes of Calico's. Those over links that go are named too, though they go with them.
func (n *Node) routes() ([]Leftover, error) {
	var out []Leftover
	links, err := linksByIndex()
	if err != nil {
		return nil, err
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE) // of all tables
		if err != nil {
			return out, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			link := links[r.LinkIndex]
			l, ok := n.route(&r, nameOf(link))
			if !ok {
				continue
			}
			if link != nil && isPods(link) {
				l.Kept = "a pod is reached by it: drain the node, or delete the pod"
			}
			out = append(out, l)
		}
	}
	return out, nil
}

func linksByIndex() (map[int]netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := map[int]netlink.Link{}
	for _, l := range links {
		out[l.Attrs().Index] = l
	}
	return out, nil
}

func nameOf(link netlink.Link) string {
	if link == nil {
		return ""
	}
	return link.Attrs().Name
}

func (n *Node) route(r *netlink.Route, link string) (Leftover, bool) {
	l := Leftover{Kind: "route", Name: "default", remove: func() error { return gone(netlink.RouteDel(r)) }}
	var to netip.Prefix
	if r.Dst != nil {
		l.Name = r.Dst.String()
		to, _ = netip.ParsePrefix(l.Name)
	}
	switch {
	case r.Type == unix.RTN_BLACKHOLE:
		l.Detail = "blackhole"
	case r.Type == unix.RTN_THROW:
		l.Detail = "throw"
	case link != "":
		l.Detail = "dev " + link
	}
	if r.Table != unix.RT_TABLE_MAIN {
		l.Detail += fmt.Sprintf(" table %d", r.Table)
	}
	switch {
	case r.Protocol == felix:
		return l, true
	case r.Protocol != unix.RTPROT_BIRD:
		return l, false
	case isOwnLink(link) || to.IsValid() && n.inPools(to):
	case link == tunl0 || r.Type == unix.RTN_BLACKHOLE:
		l.Kept = "a BIRD made it, which may be Calico's: give --pod-cidr if it is of Calico's pools"
	default:
		return l, false
	}
	l.Detail += " proto bird"
	return l, true
}
