package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// services leads virtual addresses to pods, and hides the clients of some, as kube-proxy does.
const services = `
table ip services {
	chain services {
		type nat hook prerouting priority -100;
		ip daddr 10.96.0.1 tcp dport 80 dnat to 10.9.0.2:8080
		ip daddr 10.96.0.2 tcp dport 80 dnat to 10.9.0.2:9090
		ip daddr 10.96.0.3 tcp dport 80 dnat to 10.9.0.1:8080
	}
	chain clients {
		type nat hook postrouting priority 100;
		ip daddr 10.9.0.4 masquerade
		ip saddr 10.9.0.1 ip daddr 10.9.0.1 masquerade
	}
}
table ip6 services {
	chain services {
		type nat hook prerouting priority -100;
		ip6 daddr fd96::1 tcp dport 80 dnat to [fd09::2]:8080
		ip6 daddr fd96::2 tcp dport 80 dnat to [fd09::2]:9090
		ip6 daddr fd96::3 tcp dport 80 dnat to [fd09::1]:8080
	}
	chain clients {
		type nat hook postrouting priority 100;
		ip6 daddr fd09::4 masquerade
		ip6 saddr fd09::1 ip6 daddr fd09::1 masquerade
	}
}
`

// virtual is a Service's address.
func virtual(v6 bool, last byte) netip.Addr {
	if v6 {
		return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x96, 15: last})
	}
	return netip.AddrFrom4([4]byte{10, 96, 0, last})
}

func TestServicesAreJudgedByTheirBackends(t *testing.T) {
	n := newNode(t, dataplane.Options{Events: dataplane.EventsAll})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.nft(services)
	b.Echo("tcp", 8080)
	b.Echo("tcp", 9090)
	n.set(a, isolate(policy.Egress, with(pods(b), port(policy.TCP, 8080))))
	reported := watchEvents(t, n.d)

	bothFamilies(t, func(t *testing.T, v6 bool) {
		next := func() events.Event {
			for {
				if e := nextEvent(t, reported); e.Destination.Addr().Is6() == v6 { // a refused SYN of before may have been sent again
					return e
				}
			}
		}
		reaches(t, a, "tcp", virtual(v6, 1), 80)
		e := next()
		if want := netip.AddrPortFrom(b.Addr(v6), 8080); e.Destination != want || e.Verdict != events.Allow {
			t.Errorf("accepted %v, want %v; event %+v", e.Destination, want, e)
		}
		if want := netip.AddrPortFrom(virtual(v6, 1), 80); e.OriginalDestination != want {
			t.Errorf("originally to %v, want %v", e.OriginalDestination, want)
		}
		isKept(t, a, "tcp", virtual(v6, 2), 80)
		e = next()
		if e.Destination != netip.AddrPortFrom(b.Addr(v6), 9090) || e.Verdict != events.Deny || e.OriginalDestination != netip.AddrPortFrom(virtual(v6, 2), 80) {
			t.Errorf("event of a refusal: %+v", e)
		}
	})
}

func TestMasqueradedClientsAreJudgedAsThemselves(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, c, server := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.3", "fd09::3"), n.AddPod("10.9.0.4", "fd09::4")
	n.AddAddress(server.Host, "10.9.255.1/32")
	n.AddAddress(server.Host, "fd09:ffff::1/128")
	n.nft(services)
	server.Echo("tcp", 80)
	server.Echo("udp", 80)
	n.set(server, isolate(policy.Ingress, with(pods(a))))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		for _, network := range []string{"tcp", "udp"} {
			reaches(t, a, network, server.Addr(v6), 80)
			isKept(t, c, network, server.Addr(v6), 80)
		}
	})
}

func TestAPodReachesItselfThroughItsService(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.AddAddress(a.Host, "10.9.255.1/32")
	n.AddAddress(a.Host, "fd09:ffff::1/128")
	n.nft(services)
	a.Echo("tcp", 8080)
	n.set(a, isolate(policy.Ingress), isolate(policy.Egress))

	bothFamilies(t, func(t *testing.T, v6 bool) {
		reaches(t, a, "tcp", virtual(v6, 3), 80)
		isKept(t, b, "tcp", virtual(v6, 3), 80)
	})
}
