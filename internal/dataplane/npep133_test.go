package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// What NPEP-133 of network-policy-api expects of domain names as peers of egress rules, with real packets: one test for each of its sentences.
// TestNamesThatMatchAndDoNot is about which names a pattern matches, and TestNamesExpire about connections after the TTL.

// answerWith makes the zone answer every question with these records.
func (z *zone) answerWith(records ...record) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.change = func(message []byte) []byte {
		name, kind := readQuestion(message)
		return dnsMessage(binary.BigEndian.Uint16(message), dnsAnswer, name, kind, records...)
	}
}

func TestNPEP133ANameGrantsNoAccessToDNS(t *testing.T) {
	n := newNameNode(t, withNames)
	n.set(n.client, isolate(policy.Egress, named([]string{"api.example.com"})))
	bothFamilies(t, func(t *testing.T, v6 bool) { isKept(t, n.client, "udp", n.resolver.Addr(v6), 53) })
}

func TestNPEP133OtherNamesResolveAndAreNotReached(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		n.zone.set("other.example.org", n.target.Addr(v6))
		n.ask(v6, "other.example.org") // fails without an answer
		isKept(t, n.client, "udp", n.target.Addr(v6), 80)
	})
}

func TestNPEP133AnAddressThatWasNotAskedForIsDenied(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		n.zone.set("api.example.com", n.target.Addr(v6))
		isKept(t, n.client, "udp", n.target.Addr(v6), 80)
		n.ask(v6, "api.example.com")
		reaches(t, n.client, "udp", n.target.Addr(v6), 80)
	})
}

// 100 addresses for each name of a policy, and for each name that a wildcard selects.
func TestNPEP133AHundredAddressesOfEachName(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"exact.test", "*.example.com"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		for i, name := range []string{"exact.test", "docs.example.com", "blog.example.com"} {
			var addrs []netip.Addr
			for j := range 100 {
				a := netip.AddrFrom4([4]byte{198, 51, byte(i), byte(j)})
				if v6 {
					a = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 14: byte(i), 15: byte(j)})
				}
				addrs = append(addrs, a)
			}
			for _, a := range addrs { // one in each answer, as of a name whose addresses change
				n.zone.set(name, a)
				n.ask(v6, name)
			}
			for _, a := range addrs {
				if !n.isLearned(a) {
					t.Errorf("%s: %v was not learned, or is forgotten", name, a)
				}
			}
		}
	})
}

// The address's own name, which a PTR record has, plays no part: here it is another one.
func TestNPEP133NoPTRRecordIsNeeded(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"my-hostname.example.com"}))
	n.zone.set("my-hostname.example.com", n.target.V4)
	n.ask(false, "my-hostname.example.com")
	const typePTR = 12
	n.zone.answerWith(record{typePTR, 300, dnsName("other-host.example.com")})
	ask(t, n.client, netip.AddrPortFrom(n.resolver.V4, 53), "3.0.9.10.in-addr.arpa", typePTR)
	reaches(t, n.client, "udp", n.target.V4, 80)
}

// Names of pods and of headless Services lead to pods and match. A Service's name leads to its cluster IP and does not, nor does that of a
// load balancer.
func TestNPEP133NamesInTheCluster(t *testing.T) {
	n := newNameNode(t, withNames)
	for family, rule := range map[string]string{
		"ip":  "ip daddr 10.96.0.9 udp dport 80 dnat to 10.9.0.3:80",
		"ip6": "ip6 daddr fd96::9 udp dport 80 dnat to [fd09::3]:80",
	} {
		n.nft("table " + family + " services {\n chain services {\n type nat hook prerouting priority -100;\n " + rule + "\n }\n}\n")
	}
	bothFamilies(t, func(t *testing.T, v6 bool) {
		service, name := virtual(v6, 9), fmt.Sprintf("web%v.shop.svc.cluster.local", v6)
		n.allow(named([]string{name}))
		n.zone.set(name, service)
		n.ask(v6, name)
		isKept(t, n.client, "udp", service, 80)

		for _, name := range []string{fmt.Sprintf("pod%v.shop.pod.cluster.local", v6), fmt.Sprintf("headless%v.shop.svc.cluster.local", v6)} {
			n.allow(named([]string{name}))
			n.zone.set(name, n.target.Addr(v6))
			isKept(t, n.client, "udp", n.target.Addr(v6), 80)
			n.ask(v6, name)
			reaches(t, n.client, "udp", n.target.Addr(v6), 80)
		}
	})
}

// An answer with the chain of CNAMEs and the address allows the address. A chain in two answers does not.
func TestNPEP133ACNAMEInOneAnswer(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"www.example.org", "two.example.org"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		alias, address := record{typeCNAME, 300, dnsName("example.org")}, addressRecord(n.target.Addr(v6), 300)
		n.zone.answerWith(alias)
		n.ask(v6, "two.example.org")
		n.zone.answerWith(address)
		n.ask(v6, "example.org")
		isKept(t, n.client, "udp", n.target.Addr(v6), 80)
		n.zone.answerWith(alias, address)
		n.ask(v6, "www.example.org")
		reaches(t, n.client, "udp", n.target.Addr(v6), 80)
	})
}

// New connections end with the TTL, and those that live stay, also of a name that a wildcard selects.
func TestNPEP133NoNewConnectionsAfterTheTTL(t *testing.T) {
	opts := withNames
	opts.Names.MinTTL = time.Second
	n := newNameNode(t, opts)
	n.allow(named([]string{"*.example.com"}))
	n.zone.ttl = 1
	n.zone.set("api.example.com", n.target.V6)
	n.ask(true, "api.example.com")
	to := netip.AddrPortFrom(n.target.V6, 80)
	live, err := n.client.Dial("tcp", to, netnstest.Patience)
	check(t, err)
	defer func() { _ = live.Close() }()
	n.await("the end of the name", func() bool { return n.client.Ask("tcp", to, 100*time.Millisecond) != nil })
	if err := netnstest.Exchange(live, 8, netnstest.Patience); err != nil {
		t.Errorf("a live connection: %v", err)
	}
}
