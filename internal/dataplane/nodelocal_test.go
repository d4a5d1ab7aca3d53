package dataplane_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

// A resolver on the node itself, as NodeLocal DNSCache, with and without rules that exempt it from connection tracking.
func TestResolversOnTheNode(t *testing.T) {
	for name, rules := range map[string]string{
		"tracked": "",
		"exempt": "table inet raw {\n chain in {\n type filter hook prerouting priority raw;\n udp dport 53 notrack\n }\n" +
			" chain out {\n type filter hook output priority raw;\n udp sport 53 notrack\n }\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			n := newNameNode(t, withNames)
			lo, err := n.Link.LinkByName("lo")
			check(t, err)
			resolvers := map[bool]netip.Addr{false: netip.MustParseAddr("169.254.20.10"), true: netip.MustParseAddr("fd00::10")}
			for _, a := range resolvers {
				n.AddAddress(lo, netip.PrefixFrom(a, a.BitLen()).String())
			}
			if rules != "" {
				n.nft(rules)
			}
			bothFamilies(t, func(t *testing.T, v6 bool) {
				zone := &zone{answers: map[string][]netip.Addr{}, ttl: 300}
				var conn net.PacketConn
				n.Do(func() (err error) {
					conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(resolvers[v6], 53)))
					return err
				})
				t.Cleanup(func() { _ = conn.Close() })
				go zone.serve(conn)
				n.compiler.SetResolvers([]netip.AddrPort{netip.AddrPortFrom(resolvers[v6], 53)})
				n.set(n.client, isolate(policy.Egress, named([]string{"api.example.com"})))
				zone.set("api.example.com", n.target.Addr(v6))
				for _, reads := range []bool{false, true} {
					n.Do(func() error { return n.d.SetReadsOwn(reads) })
					ask(t, n.client, netip.AddrPortFrom(resolvers[v6], 53), "api.example.com", kindOf(v6))
					if got := n.isLearned(n.target.Addr(v6)); got != reads {
						t.Errorf("reads %v: learned %v", reads, got)
					}
				}
				reaches(t, n.client, "udp", n.target.Addr(v6), 80)
				n.Do(func() error { return n.d.SetReadsOwn(false) })
				if _, files := n.pins(); len(files) != len(allPins) {
					t.Errorf("pinned are %v", files)
				}
			})
		})
	}
}
