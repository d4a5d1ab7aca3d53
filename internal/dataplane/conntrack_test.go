package dataplane_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// flush empties conntrack, as `conntrack -F` does.
func (n *node) flush() {
	n.t.Helper()
	n.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
}

func TestTheTimeoutOfConntrack(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("netfilter/nf_conntrack_tcp_timeout_established", "86400")
	n.Do(func() error {
		if got := conntrack.EstablishedTimeout(); got != 24*time.Hour {
			t.Errorf("%v, want a day", got)
		}
		return nil
	})
}

// Conntrack belongs to the node's operators too. Whatever they do to it, nothing passes that may not, and
// what may goes on with its client's next packet: until then a server's packet opens a flow of its own, which
// an isolated client does not let in.
func TestConntrackInOthersHands(t *testing.T) {
	for name, sysctls := range map[string][]string{
		"as it is":                     nil,
		"windows are not looked at":    {"nf_conntrack_tcp_be_liberal", "1"},
		"checksums are not either":     {"nf_conntrack_checksum", "0"},
		"no flow begins in the middle": {"nf_conntrack_tcp_loose", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, dataplane.Options{})
			a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
			b.Echo("tcp", 81)
			b.Echo("udp", 81)
			n.set(a, isolate(policy.Ingress))
			n.set(b, isolate(policy.Ingress, with(pods(a), port(policy.TCP, 80), port(policy.UDP, 80))), isolate(policy.Egress))
			for i := 0; i < len(sysctls); i += 2 {
				n.Sysctl("netfilter/"+sysctls[i], sysctls[i+1])
			}
			bothFamilies(t, func(t *testing.T, v6 bool) {
				for _, network := range []string{"udp", "tcp"} {
					client, server := live(t, a, b, network, netip.AddrPortFrom(b.Addr(v6), 80), 80)
					n.flush()
					if !push(t, client, server, netnstest.Patience) {
						t.Errorf("%s: the client's packets do not arrive any more", network)
					}
					if name != "no flow begins in the middle" && !push(t, server, client, netnstest.Patience) {
						t.Errorf("%s: the server's packets do not arrive any more", network)
					}
					n.flush()
					if push(t, server, client, netnstest.Silence) {
						t.Errorf("%s: the server opened a flow to a client without allowed ingress", network)
					}
					isKept(t, a, network, b.Addr(v6), 81)
				}
			})
		})
	}
}

// What is refused on its way leaves nothing behind: a pod cannot fill another node's table with it.
func TestRefusedPacketsLeaveNoEntry(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.Sysctl("ipv4/conf/"+a.Host.Attrs().Name+"/rp_filter", "0")
	n.set(a)
	n.set(b, isolate(policy.Ingress))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		before := denied(t, n.d)
		for port := range uint16(50) {
			sendFrom(t, a, netip.AddrPortFrom(a.Addr(v6), 2000+port), netip.AddrPortFrom(b.Addr(v6), 53))
			sendFrom(t, a, netip.AddrPortFrom(netip.MustParseAddr(map[bool]string{false: "198.51.100.7", true: "2001:db8::7"}[v6]), 2000+port), netip.AddrPortFrom(b.Addr(v6), 53))
		}
		after := denied(t, n.d)
		if got := after[events.ReasonDefault] - before[events.ReasonDefault]; got != 50 {
			t.Errorf("%d packets were refused, want 50", got)
		}
		if got := after[events.ReasonSpoofed] - before[events.ReasonSpoofed]; got != 50 {
			t.Errorf("%d packets were spoofed, want 50", got)
		}
		if flows := n.flows(b.Addr(v6)); len(flows) > 0 {
			t.Errorf("%d flows are in conntrack: %v", len(flows), flows[0])
		}
	})
}
