package dataplane_test

import (
	"flag"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

var firstPackets = flag.Int("first-packets", 100, "how many first packets follow answers at once, over UDP and over TCP")

// Every first packet after an answer passes, and every one before it is denied: each packet is sent once, and belongs to a flow of its own.
func TestEveryFirstPacketAfterItsAnswer(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run("DNS over "+network, func(t *testing.T) {
			n := newNameNode(t, withNames)
			n.zone.serveStreams(t, n.resolver.Namespace, func([]byte) []int { return nil })
			n.set(n.client, isolate(policy.Egress, with(pods(n.resolver)), named([]string{"*.example.com"}, port(policy.UDP, 80))))
			bothFamilies(t, func(t *testing.T, v6 bool) {
				passed, kept := 0, uint64(0)
				rounds := *firstPackets / 2
				for i := range rounds {
					// A source port that comes again would belong to the flow that passed before.
					n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
					before := n.denials()
					n.sendOnce(v6)
					n.await("a denial", func() bool { return n.denials() > before })
					kept += n.denials() - before
					name := fmt.Sprintf("n%d.example.com", i%200)
					n.zone.set(name, n.target.Addr(v6))
					if network == "udp" {
						n.ask(v6, name)
					} else {
						n.askStream(v6, name)
					}
					if n.client.Ask("udp", netip.AddrPortFrom(n.target.Addr(v6), 80), netnstest.Patience) == nil {
						passed++
					}
					n.takeLearned()
					takeAll(t, n.d.Maps().Places, func(bpf.FilterPlaceKey) {})
				}
				t.Logf("%d of %d first packets after the answer passed, %d of %d before it were denied", passed, rounds, kept, rounds)
				if passed != rounds || kept != uint64(rounds) {
					t.Error("not all")
				}
			})
		})
	}
}

// denials are the packets that were denied.
func (n *nameNode) denials() (sum uint64) {
	n.t.Helper()
	for _, packets := range denied(n.t, n.d) {
		sum += packets
	}
	return sum
}

// sendOnce sends one datagram of a new flow to the target.
func (n *nameNode) sendOnce(v6 bool) {
	n.t.Helper()
	c, err := n.client.Dial("udp", netip.AddrPortFrom(n.target.Addr(v6), 80), netnstest.Patience)
	check(n.t, err)
	defer func() { _ = c.Close() }()
	_, err = c.Write([]byte("kidoban."))
	check(n.t, err)
}
