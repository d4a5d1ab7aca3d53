package leftovers

import (
	"fmt"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// rules of routing that send what WireGuard has not yet encrypted to a table of Calico's: "not from all fwmark 0x100000/0x100000 lookup 1".
// The priority (99), the mark and the table are configurable, so that what is in the table tells whose the rule is.
func (n *Node) rules() ([]Leftover, error) {
	links, err := linksByIndex()
	if err != nil {
		return nil, err
	}
	var out []Leftover
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			return out, fmt.Errorf("list rules of routing: %w", err)
		}
		for _, r := range rules {
			if !r.Invert || r.Mark == 0 || slices.Contains([]int{unix.RT_TABLE_UNSPEC, unix.RT_TABLE_DEFAULT, unix.RT_TABLE_MAIN, unix.RT_TABLE_LOCAL}, r.Table) {
				continue
			}
			found, err := wireguard(&r, family, links)
			if err != nil {
				return out, err
			}
			out = append(out, found...)
		}
	}
	return out, nil
}

const wireguardPriority = 99

func wireguard(r *netlink.Rule, family int, links map[int]netlink.Link) ([]Leftover, error) {
	routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: r.Table}, netlink.RT_FILTER_TABLE)
	if err != nil {
		return nil, fmt.Errorf("list the routes of table %d: %w", r.Table, err)
	}
	r.Family = family
	l := Leftover{Kind: "rule of routing", Name: fmt.Sprintf("%d: not fwmark %#x lookup %d", r.Priority, r.Mark, r.Table), Detail: familyOf(family)}
	own, others := 0, 0
	var list []Leftover
	for _, route := range routes {
		switch link := nameOf(links[route.LinkIndex]); {
		case isOwnLink(link) || route.Protocol == felix:
			own++ // found as any route of Felix's, or gone with its link
		case route.Type == unix.RTN_THROW:
			to := "default"
			if route.Dst != nil {
				to = route.Dst.String()
			}
			list = append(list, Leftover{Kind: "route", Name: to, Detail: fmt.Sprintf("throw table %d", r.Table), remove: func() error { return gone(netlink.RouteDel(&route)) }})
		default:
			others++
		}
	}
	switch {
	case others > 0:
		return nil, nil
	case own > 0:
		l.remove = func() error { return gone(netlink.RuleDel(r)) }
		return append([]Leftover{l}, list...), nil
	case r.Priority == wireguardPriority:
		l.Kept = fmt.Sprintf("it looks like that of Calico's WireGuard, but no route of table %d says so: ip rule del, if no other program needs it", r.Table)
		return []Leftover{l}, nil
	}
	return nil, nil
}

func familyOf(family int) string {
	if family == netlink.FAMILY_V6 {
		return "(ip6)"
	}
	return "(ip)"
}
