package inspect

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// What each kind of device decapsulates, and where it ends.
func TestTunnelsOfEachKind(t *testing.T) {
	up := netlink.LinkAttrs{Name: "t0", Index: 7, Flags: net.FlagUp}
	remote, group := net.IPv4(192, 0, 2, 2), net.IPv4(239, 0, 0, 1)
	forward := func(index, state int, end net.IP) netlink.Neigh {
		return netlink.Neigh{LinkIndex: index, State: state, IP: end}
	}
	routes := []netlink.Route{{LinkIndex: 7, Gw: net.IPv4(192, 0, 2, 3)}, {LinkIndex: 8, Gw: net.IPv4(192, 0, 2, 9)}, {LinkIndex: 7}, {
		MultiPath: []*netlink.NexthopInfo{{LinkIndex: 7, Gw: net.IPv4(192, 0, 2, 4)}, {LinkIndex: 8, Gw: net.IPv4(192, 0, 2, 9)}},
	}}
	for name, test := range map[string]struct {
		link       netlink.Link
		forwarding []netlink.Neigh
		want       Tunnels
		ends       []string
		endless    bool
	}{
		"vxlan, as flannel has it": {
			link: &netlink.Vxlan{LinkAttrs: up, Port: 8472},
			forwarding: []netlink.Neigh{
				forward(7, netlink.NUD_PERMANENT, remote), forward(7, netlink.NUD_PERMANENT, net.ParseIP("2001:db8::2")), forward(7, netlink.NUD_PERMANENT, nil),
				forward(7, netlink.NUD_REACHABLE, net.IPv4(192, 0, 2, 7)), forward(8, netlink.NUD_PERMANENT, net.IPv4(192, 0, 2, 8)),
			},
			want: Tunnels{Ports: []uint16{8472}}, ends: []string{"192.0.2.2/32", "2001:db8::2/128"},
		},
		"vxlan to one end":       {link: &netlink.Vxlan{LinkAttrs: up, Port: 4789, Group: remote}, want: Tunnels{Ports: []uint16{4789}}, ends: []string{"192.0.2.2/32"}},
		"vxlan by multicast":     {link: &netlink.Vxlan{LinkAttrs: up, Port: 4789, Group: group}, want: Tunnels{Ports: []uint16{4789}}, endless: true},
		"vxlan with metadata":    {link: &netlink.Vxlan{LinkAttrs: up, Port: 4789, FlowBased: true}, want: Tunnels{Ports: []uint16{4789}}, endless: true},
		"geneve":                 {link: &netlink.Geneve{LinkAttrs: up, Dport: 6081, Remote: remote}, want: Tunnels{Ports: []uint16{6081}}, ends: []string{"192.0.2.2/32"}},
		"geneve with metadata":   {link: &netlink.Geneve{LinkAttrs: up, Dport: 6081, FlowBased: true}, want: Tunnels{Ports: []uint16{6081}}, endless: true},
		"bareudp":                {link: &netlink.BareUDP{LinkAttrs: up, Port: 6635}, want: Tunnels{Ports: []uint16{6635}}, endless: true},
		"ipip":                   {link: &netlink.Iptun{LinkAttrs: up, Remote: remote}, want: Tunnels{Protocols: []uint8{4, 137}}, ends: []string{"192.0.2.2/32"}},
		"ipip, as host routes":   {link: &netlink.Iptun{LinkAttrs: up, Remote: net.IPv4zero}, want: Tunnels{Protocols: []uint8{4, 137}}, ends: []string{"192.0.2.3/32", "192.0.2.4/32"}},
		"ipip with metadata":     {link: &netlink.Iptun{LinkAttrs: up, FlowBased: true}, want: Tunnels{Protocols: []uint8{4, 137}}, ends: []string{"192.0.2.3/32", "192.0.2.4/32"}, endless: true},
		"ipip in UDP (fou, gue)": {link: &netlink.Iptun{LinkAttrs: up, Remote: remote, EncapType: 1, EncapDport: 5555}, want: Tunnels{Protocols: []uint8{4, 137}, Ports: []uint16{5555}}, ends: []string{"192.0.2.2/32"}},
		"sit":                    {link: &netlink.Sittun{LinkAttrs: up, Remote: remote}, want: Tunnels{Protocols: []uint8{4, 41, 137}}, ends: []string{"192.0.2.2/32"}},
		"ip6tnl":                 {link: &netlink.Ip6tnl{LinkAttrs: up, Remote: net.ParseIP("2001:db8::2")}, want: Tunnels{Protocols: []uint8{4, 41, 137}}, ends: []string{"2001:db8::2/128"}},
		"gre":                    {link: &netlink.Gretun{LinkAttrs: up, Local: net.IPv4(192, 0, 2, 1), Remote: remote}, want: Tunnels{Protocols: []uint8{47}}, ends: []string{"192.0.2.2/32"}},
		"gre by multicast":       {link: &netlink.Gretun{LinkAttrs: up, Remote: group}, want: Tunnels{Protocols: []uint8{47}}, endless: true},
		"gretap":                 {link: &netlink.Gretap{LinkAttrs: up, Remote: remote}, want: Tunnels{Protocols: []uint8{47}}, ends: []string{"192.0.2.2/32"}},
		"erspan":                 {link: &netlink.GenericLink{LinkAttrs: up, LinkType: "erspan"}, want: Tunnels{Protocols: []uint8{47}}, endless: true},
	} {
		t.Run(name, func(t *testing.T) {
			reader := newTunnelReader([]netlink.Link{&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "cni0", Index: 3, Flags: net.FlagUp}}, test.link})
			reader.forwarding, reader.routes = test.forwarding, routes
			want := test.want
			want.Devices = []uint32{7}
			for _, end := range test.ends {
				want.Ends = append(want.Ends, netip.MustParsePrefix(end))
			}
			if test.endless {
				want.Endless = []string{"t0"}
			}
			got := reader.read()
			if !got.Equal(&want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
			if warned := len(got.Warnings()) > 0; warned != test.endless {
				t.Errorf("warned: %t", warned)
			}
			test.link.Attrs().Flags = 0
			if down := newTunnelReader([]netlink.Link{test.link}).read(); !down.Empty() || len(down.Devices) > 0 {
				t.Errorf("a device that is down: %+v", down)
			}
			test.link.Attrs().Flags = net.FlagUp
		})
	}
}

func TestTunnelEndsOfAFlag(t *testing.T) {
	more := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}
	none := &Tunnels{}
	if none.AddEnds(more); len(none.Ends) > 0 {
		t.Error("a node without tunnels has ends")
	}
	tunnels := &Tunnels{Ports: []uint16{6081}, Endless: []string{"geneve0"}, Ends: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/32")}}
	if tunnels.AddEnds(more); !slices.Contains(tunnels.Ends, more[0]) || len(tunnels.Ends) != 2 || len(tunnels.Warnings()) > 0 {
		t.Errorf("with a flag: %+v", tunnels)
	}
	for flow, want := range map[netip.AddrPort]bool{
		netip.MustParseAddrPort("10.1.2.3:6081"): true, netip.MustParseAddrPort("10.1.2.3:6082"): false, netip.MustParseAddrPort("10.2.2.3:6081"): false,
	} {
		if tunnels.Takes(17, flow) != want || tunnels.Takes(6, flow) {
			t.Errorf("%v: %t", flow, !want)
		}
	}
}
