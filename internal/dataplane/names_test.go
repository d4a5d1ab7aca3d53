package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// withNames is an Options of a Dataplane that learns names.
var withNames = dataplane.Options{Names: dataplane.NameOptions{On: true}, Sizes: dataplane.Sizes{Learned: 1 << 13, Names: 1 << 10}}

// named allows these ports, or all, of what these names resolve to.
func named(names []string, ports ...policy.PortRange) policy.Rule {
	return policy.Rule{Peers: policy.ListPeers(policy.Peer{DomainNames: names}), Ports: ports, EveryPort: ports == nil}
}

// nameNode is a node with a client, a resolver in a pod, and a target.
type nameNode struct {
	*node
	client, resolver, target *netnstest.Pod
	zone                     *zone
}

func newNameNode(t testing.TB, opts dataplane.Options) *nameNode {
	t.Helper()
	n := &nameNode{node: newNode(t, opts)}
	n.client, n.resolver, n.target = n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	n.set(n.resolver)
	n.set(n.target)
	n.target.Echo("udp", 80)
	n.target.Echo("tcp", 80)
	n.zone = resolve(t, n.resolver.Namespace, 53)
	n.trust()
	return n
}

// trust makes the resolver a trusted one.
func (n *nameNode) trust() {
	n.compiler.SetResolvers([]netip.AddrPort{netip.AddrPortFrom(n.resolver.V4, 53), netip.AddrPortFrom(n.resolver.V6, 53)})
	check(n.t, n.d.Apply(n.compiler.Collect()))
}

// allow puts the client under a policy that allows DNS and what the rules do.
func (n *nameNode) allow(rules ...policy.Rule) {
	n.t.Helper()
	n.set(n.client, isolate(policy.Egress, append([]policy.Rule{with(pods(n.resolver), port(policy.UDP, 53))}, rules...)...))
}

// kindOf is the type of the records of a family.
func kindOf(v6 bool) uint16 {
	if v6 {
		return typeAAAA
	}
	return typeA
}

func (n *nameNode) ask(v6 bool, name string) {
	n.t.Helper()
	ask(n.t, n.client, netip.AddrPortFrom(n.resolver.Addr(v6), 53), name, kindOf(v6))
}

func (n *nameNode) answers(result dataplane.AnswerResult) uint64 {
	n.t.Helper()
	c, err := n.d.Counters()
	check(n.t, err)
	return c.Names.Answers[result]
}

func TestTheFirstPacketAfterTheAnswerPasses(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com", "*.wild.example"}, port(policy.UDP, 80), port(policy.TCP, 80)))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		target := n.target.Addr(v6)
		n.zone.set("other.example.com", target)
		n.zone.set("api.example.com", target)
		isKept(t, n.client, "udp", target, 80)
		n.ask(v6, "other.example.com")
		isKept(t, n.client, "udp", target, 80)
		n.ask(v6, "API.example.Com")
		reaches(t, n.client, "udp", target, 80)
		reaches(t, n.client, "tcp", target, 80)
		isKept(t, n.client, "tcp", target, 81)
	})
	if n.answers("learned") != 2 || n.answers("unwanted") != 2 {
		t.Errorf("answers: %d learned, %d unwanted", n.answers("learned"), n.answers("unwanted"))
	}
}

func TestNamesThatMatchAndDoNot(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"*.example.com", "exact.test"}))
	for i, tc := range []struct {
		name    string
		allowed bool
	}{
		{"a.example.com", true},
		{"a.b.c.example.com", true},
		{"example.com", false},
		{"xexample.com", false},
		{"exact.test", true},
		{"a.exact.test", false},
		{"exact.test.evil", false},
		{"a.example.com.evil", false},
	} {
		bothFamilies(t, func(t *testing.T, v6 bool) {
			addr := netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			if v6 {
				addr = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(i)})
			}
			n.zone.set(tc.name, addr)
			n.ask(v6, tc.name)
			if got := n.isLearned(addr); got != tc.allowed {
				t.Errorf("%s: learned %v, want %v", tc.name, got, tc.allowed)
			}
		})
	}
}

// isLearned reports whether an address was learned under any pattern.
func (n *nameNode) isLearned(addr netip.Addr) bool { return len(n.d.PatternsOf(addr)) > 0 }

// An earlier Deny by CIDR wins, and a later one does not; a name widens no other rule.
func TestRulesByNameStandInOrder(t *testing.T) {
	n := newNameNode(t, withNames)
	admin := &policy.Policy{Tier: policy.TierAdmin, ID: policy.ID{Kind: "ClusterNetworkPolicy", Name: "names"}, Isolates: [2]bool{policy.Egress: true}}
	deny := with(pods(n.target), port(policy.UDP, 80))
	deny.Action = policy.Deny
	everything := policy.Rule{Action: policy.Deny, Everyone: true, EveryPort: true}
	admin.Rules[policy.Egress] = []policy.Rule{
		with(pods(n.resolver), port(policy.UDP, 53)), deny, named([]string{"api.example.com"}, port(policy.UDP, 80), port(policy.TCP, 80)), everything,
	}
	n.set(n.client, admin)
	bothFamilies(t, func(t *testing.T, v6 bool) {
		target := n.target.Addr(v6)
		n.zone.set("api.example.com", target)
		n.ask(v6, "api.example.com")
		reaches(t, n.client, "tcp", target, 80)
		isKept(t, n.client, "tcp", target, 81)
		isKept(t, n.client, "udp", target, 80)
	})
}

// A resolver behind a Service is trusted by the Service's address, whatever port its pods listen on, or by the pod's address and port.
func TestResolversBehindServices(t *testing.T) {
	n := newNameNode(t, withNames)
	zone := resolve(t, n.resolver.Namespace, 5353)
	for family, rule := range map[string]string{
		"ip":  "ip daddr 10.96.0.9 udp dport 53 dnat to 10.9.0.2:5353",
		"ip6": "ip6 daddr fd96::9 udp dport 53 dnat to [fd09::2]:5353",
	} {
		n.nft("table " + family + " services {\n chain services {\n type nat hook prerouting priority -100;\n " + rule + "\n }\n}\n")
	}
	bothFamilies(t, func(t *testing.T, v6 bool) {
		service := netip.AddrPortFrom(virtual(v6, 9), 53)
		for i, resolvers := range [][]netip.AddrPort{
			nil,
			{netip.AddrPortFrom(n.resolver.Addr(v6), 53)}, // another port of the pod
			{service},
			{netip.AddrPortFrom(n.resolver.Addr(v6), 5353)},
			{netip.AddrPortFrom(service.Addr(), 0)},
		} {
			n.compiler.SetResolvers(resolvers)
			name, addr := fmt.Sprintf("n%d.example.com", i), netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			if v6 {
				addr = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(i)})
			}
			n.set(n.client, isolate(policy.Egress, with(pods(n.resolver)), named([]string{"*.example.com"})))
			zone.set(name, addr)
			ask(t, n.client, service, name, kindOf(v6))
			if got := n.isLearned(addr); got != (i > 1) {
				t.Errorf("trusted %v: learned %v", resolvers, got)
			}
		}
	})
}

// What conntrack takes for an answer, and no resolver has sent, teaches nothing.
func TestForgedAnswers(t *testing.T) {
	n := newNameNode(t, withNames)
	n.Sysctl("ipv4/conf/all/rp_filter", "0")
	attacker := n.AddPod("10.9.0.4", "fd09::4")
	for _, p := range []*netnstest.Pod{n.client, attacker} {
		n.Sysctl("ipv4/conf/"+p.Host.Attrs().Name+"/rp_filter", "0")
	}
	n.set(attacker)
	n.allow(named([]string{"api.example.com"}))
	silent := inbox(t, n.target, 53) // a trusted resolver that never answers
	n.compiler.SetResolvers([]netip.AddrPort{netip.AddrPortFrom(n.target.V4, 53), netip.AddrPortFrom(n.target.V6, 53)})
	n.set(n.client, isolate(policy.Egress, with(pods(n.target)), named([]string{"api.example.com"})))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		addr := netip.MustParseAddr("198.51.100.1")
		if v6 {
			addr = netip.MustParseAddr("2001::1")
		}
		server := netip.AddrPortFrom(n.target.Addr(v6), 53)
		c, err := n.client.Dial("udp", server, netnstest.Patience)
		check(t, err)
		defer func() { _ = c.Close() }()
		_, err = c.Write(dnsMessage(7, dnsQuery, "api.example.com", kindOf(v6)))
		check(t, err)
		check(t, silent.SetReadDeadline(time.Now().Add(netnstest.Patience)))
		_, from, err := silent.ReadFromUDPAddrPort(make([]byte, 512))
		check(t, err)
		answer := dnsMessage(7, dnsAnswer, "api.example.com", kindOf(v6), addressRecord(addr, 300))
		own := c.LocalAddr().(*net.UDPAddr).AddrPort()
		before := n.answers("forged")
		n.sendForged(n.client, server, own, answer) // the pod answers itself
		n.sendForged(attacker, server, own, answer)
		n.await("2 forged answers", func() bool { return n.answers("forged")-before == 2 })
		if n.isLearned(addr) {
			t.Error("a forged answer taught something")
		}
		before = n.answers("unasked")
		send := func(message []byte) {
			t.Helper()
			_, err := silent.WriteToUDPAddrPort(message, from)
			check(t, err)
		}
		send(dnsMessage(8, dnsAnswer, "api.example.com", kindOf(v6), addressRecord(addr, 300))) // another ID
		n.await("an unasked answer", func() bool { return n.answers("unasked")-before == 1 })
		if n.isLearned(addr) {
			t.Error("an answer that was not asked for taught something")
		}
		send(answer)
		n.await("an answer", func() bool { return n.isLearned(addr) })
		send(answer)
		n.await("a second answer", func() bool { return n.answers("unasked")-before == 2 })
	})
}

// await polls until something holds.
func (n *nameNode) await(what string, holds func() bool) {
	n.t.Helper()
	for deadline := time.Now().Add(netnstest.Patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			n.t.Fatalf("%s did not come", what)
		}
	}
}

// sendForged puts a message on the wire behind a pod, from whatever source.
func (n *nameNode) sendForged(p *netnstest.Pod, source, to netip.AddrPort, message []byte) {
	n.t.Helper()
	sendFrame(p, udpFrame(0, p.Host.Attrs().HardwareAddr, hardwareAddr(n.t, p), source, to, message))
}

// Addresses that lead to the node, to the pod itself or to the cloud's metadata are never learned.
func TestAddressesThatAreNeverLearned(t *testing.T) {
	opts := withNames
	for _, p := range []string{"203.0.113.0/24", "64.0.0.0/3", "3000::/6", "::ffff:198.18.0.0/111"} {
		opts.Names.Unlearnable = append(opts.Names.Unlearnable, netip.MustParsePrefix(p))
	}
	n := newNameNode(t, opts)
	n.allow(named([]string{"api.example.com"}))
	var never []netip.Addr
	for _, a := range []string{
		"127.0.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0", "255.255.255.255", "203.0.113.7", "168.63.129.16", "::1", "::", "fe80::1", "ff02::1",
		"64.0.0.1", "95.255.255.255", "239.255.255.255", "3000::1", "33ff::1", "198.18.0.1", "198.19.255.255",
		"64:ff9b::127.0.0.1", "64:ff9b::169.254.169.254", "64:ff9b::203.0.113.7", "::ffff:192.0.2.7", "fd00:ec2::254",
	} {
		never = append(never, netip.MustParseAddr(a))
	}
	var good []netip.Addr
	for _, a := range []string{"192.0.2.1", "203.0.112.1", "63.255.255.255", "96.0.0.1", "255.1.2.3", "64:ff9b::192.0.2.1", "fd00::1", "2fff::1", "3400::1"} {
		good = append(good, netip.MustParseAddr(a))
	}
	n.zone.set("api.example.com", append(never, good...)...)
	bothFamilies(t, func(_ *testing.T, v6 bool) { n.ask(v6, "api.example.com") })
	for _, a := range never {
		if n.isLearned(a) || n.isLearned(a.Unmap()) {
			t.Errorf("%v was learned", a)
		}
	}
	for _, a := range good {
		if !n.isLearned(a) {
			t.Errorf("%v was not learned", a)
		}
	}
}

// After the TTL new connections are denied, and live ones stay. Asked again, the name is allowed again.
func TestNamesExpire(t *testing.T) {
	opts := withNames
	opts.Names.MinTTL = time.Second
	n := newNameNode(t, opts)
	n.allow(named([]string{"api.example.com"}, port(policy.TCP, 80)))
	n.zone.ttl = 0
	n.zone.set("api.example.com", n.target.V4)
	n.ask(false, "api.example.com")
	to := netip.AddrPortFrom(n.target.V4, 80)
	c, err := n.client.Dial("tcp", to, netnstest.Patience)
	check(t, err)
	defer func() { _ = c.Close() }()
	n.await("the end of the name", func() bool { return n.client.Ask("tcp", to, 100*time.Millisecond) != nil })
	if err := netnstest.Exchange(c, 8, netnstest.Patience); err != nil {
		t.Errorf("a live connection: %v", err)
	}
	n.ask(false, "api.example.com")
	reaches(t, n.client, "tcp", n.target.V4, 80)
}

// Another generation goes on with what was learned, and with the numbers of the patterns, also when the policy came and went.
func TestWhatWasLearnedOutlivesPoliciesAndGenerations(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"other.example.com", "api.example.com"}))
	n.zone.set("api.example.com", n.target.V4)
	n.ask(false, "api.example.com")
	reaches(t, n.client, "tcp", n.target.V4, 80)

	n.set(n.client, isolate(policy.Egress)) // without names
	check(t, n.d.Apply(n.compiler.Collect()))
	check(t, n.d.Apply(n.compiler.Collect()))
	isKept(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"*.example.com", "api.example.com"}))
	reaches(t, n.client, "tcp", n.target.V4, 80)

	old := n.d
	n.d = newDataplane(t, n.opts)
	n.compiler = compiler.New(compiler.WithPatterns(n.d.Patterns()))
	n.allow(named([]string{"aaa.example.com", "api.example.com"}))
	n.Do(n.d.Attach)
	check(t, old.Close())
	reaches(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"aaa.example.com"}))
	isKept(t, n.client, "tcp", n.target.V4, 80)
}

// A flood of addresses, or of names, under a wildcard takes no place of another name's addresses. The newest address passes.
func TestAFloodUnderAWildcard(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"*.flood.example", "api.example.com"}))
	numbered := func(i int) netip.Addr {
		b := [4]byte{100}
		binary.BigEndian.PutUint16(b[2:], uint16(i))
		return netip.AddrFrom4(b)
	}
	kept := []string{"api.example.com", "good.flood.example"}
	for i, name := range kept {
		n.zone.set(name, netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		n.ask(false, name)
	}
	for i := range 40 { // 4,000 addresses of one name
		var addrs []netip.Addr
		for j := range 100 {
			addrs = append(addrs, numbered(100*i+j))
		}
		n.zone.set("bad.flood.example", addrs...)
		n.ask(false, "bad.flood.example")
		for _, a := range addrs[95:] {
			if !n.isLearned(a) {
				t.Fatalf("the newest addresses were not learned: %v", a)
			}
		}
	}
	learned := 0
	for i := range 4000 {
		if n.isLearned(numbered(i)) {
			learned++
		}
	}
	if learned < 100 || learned > 1024 {
		t.Errorf("%d addresses of one name are learned", learned)
	}
	for i := range kept {
		if !n.isLearned(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})) {
			t.Errorf("the flood took the address of %s", kept[i])
		}
	}
	for i := range 600 { // names, of which a wildcard has a limit, too
		name := fmt.Sprintf("n%d.flood.example", i)
		n.zone.set(name, numbered(10000+i))
		n.ask(false, name)
		if !n.isLearned(numbered(10000 + i)) {
			t.Fatalf("the newest name was not learned: %s", name)
		}
	}
	if !n.isLearned(netip.AddrFrom4([4]byte{192, 0, 2, 0})) {
		t.Error("the flood of names took the address of another pattern")
	}
	names, err := n.d.LearnedNames()
	check(t, err)
	if len(names) > 258 {
		t.Errorf("%d names are learned", len(names))
	}
}

func TestLargeAnswers(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		var addrs []netip.Addr
		for i := range 256 {
			if v6 {
				addrs = append(addrs, netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(i)}))
			} else {
				addrs = append(addrs, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
			}
		}
		n.zone.set("api.example.com", addrs...)
		n.ask(v6, "api.example.com") // 7 KB of IPv6, in fragments
		for _, a := range addrs {
			if !n.isLearned(a) {
				t.Fatalf("%v was not learned", a)
			}
		}
	})
}

// What has expired is removed. What a live flow leads to stays known, so that the flow is not taken for one that nothing allows.
func TestExpiredNamesAreForgotten(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	other := netip.MustParseAddr("198.51.100.1")
	n.zone.set("api.example.com", n.target.V4, other)
	n.ask(false, "api.example.com")
	c, err := n.client.Dial("tcp", netip.AddrPortFrom(n.target.V4, 80), netnstest.Patience)
	check(t, err)
	defer func() { _ = c.Close() }()
	n.Do(n.d.ForgetNames)
	if !n.isLearned(other) {
		t.Error("an address was forgotten that has not expired")
	}
	n.d.ExpireNames(t)
	n.Do(n.d.ForgetNames)
	if n.isLearned(other) {
		t.Error("an expired address was not forgotten")
	}
	if !n.isLearned(n.target.V4) {
		t.Error("an address with a live flow was forgotten")
	}
	names, err := n.d.LearnedNames()
	check(t, err)
	if len(names) != 0 {
		t.Errorf("names %v were not forgotten", names)
	}
}

// An edit from a name to a wildcard above it, and the reverse, forget no address that the policy still allows.
func TestEditsOfNamesForgetNothing(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	n.zone.set("api.example.com", n.target.V4)
	n.ask(false, "api.example.com")
	reaches(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"*.example.com"}))
	reaches(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"api.example.com"}))
	reaches(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"*.api.example.com", "*.other.example"}))
	isKept(t, n.client, "tcp", n.target.V4, 80)
	n.allow(named([]string{"*.com"}))
	reaches(t, n.client, "tcp", n.target.V4, 80)
	n.d.ExpireNames(t)
	n.allow(named([]string{"api.example.com", "*.example.com"}))
	isKept(t, n.client, "tcp", n.target.V4, 80)
}
