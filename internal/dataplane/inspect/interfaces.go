package inspect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	nl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/node"
)

// ReadInterfaces reads them in the calling thread's network namespace.
func ReadInterfaces() (out node.Interfaces, err error) {
	links, err := steady(netlink.LinkList)
	if err != nil {
		return out, fmt.Errorf("list links: %w", err)
	}
	routes, err := allRoutes()
	if err != nil {
		return out, err
	}
	addrs, err := steady(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, unix.AF_INET6) })
	if err != nil {
		return out, fmt.Errorf("list addresses: %w", err)
	}
	return interfacesOf(links, routes, addrs), nil
}

// allRoutes are the routes of both families in all tables: a pod's or an interface's may be in one of its own.
func allRoutes() (routes []netlink.Route, err error) {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		r, err := steady(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC, Type: unix.RTN_UNICAST}, netlink.RT_FILTER_TABLE|netlink.RT_FILTER_TYPE)
		})
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		routes = append(routes, r...)
	}
	return routes, nil
}

// steady reads a list again, up to 10 times, if it changed while it was read.
func steady[T any](list func() ([]T, error)) (out []T, err error) {
	for range 10 {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
	}
	return out, err
}

func interfacesOf(links []netlink.Link, routes []netlink.Route, addrs []netlink.Addr) node.Interfaces {
	byIndex := map[int]netlink.Link{}
	leadsOut := map[int]bool{} // bridges with a port that no workload is behind
	for _, l := range links {
		byIndex[l.Attrs().Index] = l
		if l.Type() != "veth" && l.Type() != "tuntap" {
			leadsOut[l.Attrs().MasterIndex] = true
		}
	}
	uplinks := map[uint32]bool{}
	routed := map[uint32]map[netip.Addr]bool{}
	advertised := map[uint32]bool{} // uplinks only by routes that a neighbour may have announced
	for i := range routes {
		dst := destination(&routes[i])
		for _, index := range outputs(&routes[i]) {
			l := byIndex[index]
			switch {
			case l == nil || dst.Addr().IsMulticast() || isOfLink(dst):
			case !dst.IsSingleIP():
				isBridge := l.Type() == "bridge" && !leadsOut[index]
				switch {
				case isBridge && dst.Bits() != 0:
				case isAnnounced(&routes[i], dst, index, addrs):
					if !isBridge {
						advertised[uint32(index)] = true
					}
				default:
					uplinks[uint32(index)] = true
				}
			case isVethOfPod(l) && routes[i].Protocol != unix.RTPROT_RA && routes[i].Protocol != unix.RTPROT_REDIRECT:
				if routed[uint32(index)] == nil {
					routed[uint32(index)] = map[netip.Addr]bool{}
				}
				routed[uint32(index)][dst.Addr()] = true
			}
		}
	}
	for index := range advertised {
		if routed[index] == nil {
			uplinks[index] = true
		}
	}
	out := node.Interfaces{Routed: map[uint32][]netip.Addr{}, Namespaces: map[uint32]node.NetNS{}, Uplinks: slices.Sorted(maps.Keys(uplinks))}
	for index, addrs := range routed {
		if !uplinks[index] {
			out.Routed[index] = slices.SortedFunc(maps.Keys(addrs), netip.Addr.Compare)
		}
	}
	for _, l := range links {
		if a := l.Attrs(); isVethOfPod(l) && a.NetNsID >= 0 && !uplinks[uint32(a.Index)] {
			out.Namespaces[uint32(a.Index)] = node.NetNS(a.NetNsID)
		}
	}
	return out
}

// isOfLink reports whether a destination is local to a link, so that routes to it lead nowhere else. An address of IPv4 is not: CNI plugins
// give pods such addresses and forward for them.
func isOfLink(dst netip.Prefix) bool {
	return dst.Addr().IsLinkLocalUnicast() && (!dst.Addr().Is4() || !dst.IsSingleIP())
}

// isVethOfPod reports whether a link may be a pod's own.
func isVethOfPod(l netlink.Link) bool { return l.Type() == "veth" && l.Attrs().MasterIndex == 0 }

// isAnnounced reports whether the kernel made a route because of a neighbour's router advertisement or redirect.
// The route to a prefix of a router advertisement looks like that of an address which the node's administrator
// set, except that the node has no such address.
func isAnnounced(r *netlink.Route, dst netip.Prefix, index int, addrs []netlink.Addr) bool {
	switch {
	case r.Protocol == unix.RTPROT_RA || r.Protocol == unix.RTPROT_REDIRECT:
		return true
	case r.Protocol != unix.RTPROT_KERNEL || dst.Addr().Is4():
		return false
	}
	return !slices.ContainsFunc(addrs, func(a netlink.Addr) bool {
		addr, _ := netip.AddrFromSlice(a.IP)
		return a.LinkIndex == index && a.Flags&unix.IFA_F_PERMANENT != 0 && dst.Contains(addr)
	})
}

func destination(r *netlink.Route) netip.Prefix {
	if r.Dst == nil {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	addr, _ := netip.AddrFromSlice(r.Dst.IP)
	bits, size := r.Dst.Mask.Size()
	if size == 8*net.IPv4len {
		addr = addr.Unmap()
	}
	return netip.PrefixFrom(addr, bits)
}

func outputs(r *netlink.Route) []int {
	if len(r.MultiPath) == 0 {
		return []int{r.LinkIndex}
	}
	var out []int
	for _, hop := range r.MultiPath {
		out = append(out, hop.LinkIndex)
	}
	return out
}

// How long WatchInterfaces waits for further changes after one, and the longest time between two calls
// without one.
const (
	changesBatch    = 5 * time.Millisecond
	changesMissable = 30 * time.Second
)

// WatchInterfaces calls changed after links or routes changed in the calling thread's network namespace, and
// now and then without that, until the context is done.
func WatchInterfaces(ctx context.Context, changed func()) error {
	err := watch(ctx, unix.RTMGRP_LINK|unix.RTMGRP_IPV4_ROUTE|unix.RTMGRP_IPV6_ROUTE, changed, func(nl.Message) bool { return true })
	if err != nil {
		return fmt.Errorf("watch links and routes: %w", err)
	}
	return nil
}

// watch calls changed after relevant messages of some groups, and now and then without one, until the context
// is done.
func watch(ctx context.Context, groups uint32, changed func(), relevant func(nl.Message) bool) error {
	c, err := nl.Dial(unix.NETLINK_ROUTE, &nl.Config{Groups: groups})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		if err := awaitChange(ctx, c, relevant); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return nil
		}
		changed()
	}
}

// awaitChange returns after a relevant message, when it is time to look without one, or when the context is
// done.
func awaitChange(ctx context.Context, c *nl.Conn, relevant func(nl.Message) bool) error {
	if err := c.SetReadDeadline(time.Now().Add(changesMissable)); err != nil {
		return err
	}
	for ctx.Err() == nil {
		messages, err := c.Receive()
		if isTimeout(err) {
			return nil
		}
		// Too many changes at once lose some messages, and all is read anyway.
		if err != nil && ctx.Err() == nil && !errors.Is(err, unix.ENOBUFS) {
			return err
		}
		if err != nil || slices.ContainsFunc(messages, relevant) {
			break
		}
	}
	select {
	case <-ctx.Done():
	case <-time.After(changesBatch):
	}
	return nil
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}
