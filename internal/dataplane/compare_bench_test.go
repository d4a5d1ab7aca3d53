package dataplane_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// A contender is a node with a way of its own to say the same: a pod may be reached by some addresses on
// ports from 1024 on.
type contender struct {
	*node
	name                   string
	peer, stranger, server *netnstest.Pod
	established            int       // a socket of the peer's with a flow that the server answered
	times                  []float64 // ns, of each packet of a round, or each round trip
}

// contenders are nothing at all, a program that accepts everything, nftables, kidoban, and kidoban with records
// for an observer, each on a node of its own, with conntrack on.
func contenders(b *testing.B, peers int) []*contender {
	b.Helper()
	out := []*contender{
		{name: "nothing", node: bareNode(b)},
		{name: "empty", node: bareNode(b)},
		{name: "nftables", node: bareNode(b)},
		{name: "kidoban", node: newNode(b, dataplane.Options{})},
		{name: "records", node: newNode(b, dataplane.Options{Records: true, EventRate: 50})},
	}
	members := []netip.Addr{netip.MustParseAddr("10.9.0.1")}
	for i := 1; i < peers; i++ {
		members = append(members, netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}))
	}
	for _, c := range out {
		c.peer, c.stranger, c.server = c.AddPod("10.9.0.1", "fd09::1"), c.AddPod("10.9.0.2", "fd09::2"), c.AddPod("10.9.0.3", "fd09::3")
		switch c.name {
		case "empty":
			c.Do(func() error {
				l, err := link.AttachNetfilter(link.NetfilterOptions{
					Program: emptyProgram(b), ProtocolFamily: link.NetfilterProtoIPv4, Hook: link.NetfilterInetForward, Priority: -77,
				})
				if err == nil {
					b.Cleanup(func() { _ = l.Close() })
				}
				return err
			})
		case "nftables":
			var elements []string
			for _, m := range members {
				elements = append(elements, m.String())
			}
			c.nft(`table ip rules {
				set peers { type ipv4_addr; elements = { ` + strings.Join(elements, ", ") + ` }; }
				chain pod { ip saddr @peers meta l4proto { tcp, udp } th dport 1024-65535 accept; drop; }
				chain forward { type filter hook forward priority -77; ct state established,related accept; ip daddr vmap { 10.9.0.3 : jump pod }; }
			}`)
		case "kidoban", "records":
			group := policy.GroupKey{Name: "peers"}
			var prefixes []netip.Prefix
			for _, m := range members {
				prefixes = append(prefixes, netip.PrefixFrom(m, 32))
			}
			c.compiler.UpdateGroup(group, prefixes, nil)
			c.set(c.peer)
			c.set(c.stranger)
			c.set(c.server, isolate(policy.Ingress, policy.Rule{
				Peers: policy.ListPeers(policy.Peer{Group: group}), Ports: []policy.PortRange{port(policy.TCP, 1024, 65535), port(policy.UDP, 1024, 65535)},
			}))
		}
	}
	return out
}

func bareNode(b *testing.B) *node {
	n := &node{Namespace: netnstest.NewRouter(b), t: b}
	n.Do(conntrack.Enable)
	return n
}

// sink has the server throw away what comes, before its own conntrack sees it.
func (c *contender) sink() {
	(&node{Namespace: c.server.Namespace, t: c.t}).nft("table inet sink { chain in { type filter hook prerouting priority -400; meta l4proto udp drop; }; }")
}

// packetsOfARound are sent one after the other by one thread, which the kernel has do all of the forwarding.
// They take less than a time slice.
const packetsOfARound = 200

// race has the contenders take turns, in another order each time, and reports for each the first quartile of
// its rounds: others use the machine too, and take from some.
func race(b *testing.B, cs []*contender, unit string, round func(i int, c *contender) float64) {
	b.Helper()
	for i := 0; b.Loop(); i++ {
		for j := range cs {
			c := cs[(i+j)%len(cs)]
			c.times = append(c.times, round(i, c))
		}
	}
	ns := map[string]float64{}
	for _, c := range cs {
		slices.Sort(c.times)
		ns[c.name] = c.times[len(c.times)/4]
		b.ReportMetric(ns[c.name], c.name+"-ns/"+unit)
		c.times = nil
	}
	for _, other := range cs {
		switch other.name {
		case "kidoban":
		case "records":
			b.ReportMetric(ns["records"]/ns["kidoban"], "records÷kidoban")
		default:
			b.ReportMetric(ns["kidoban"]/ns[other.name], "÷"+other.name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// sender is a UDP socket of a pod.
func sender(b *testing.B, p *netnstest.Pod) int {
	b.Helper()
	var fd int
	p.Do(func() error {
		var err error
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		return err
	})
	b.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

// BenchmarkPackets is of real packets from a pod, through the node, to a pod that throws them away: of one
// established flow, first packets of ever new flows that are accepted, and packets that are refused.
func BenchmarkPackets(b *testing.B) {
	for _, peers := range []int{1, 100, 10_000, 100_000} {
		cs := contenders(b, peers)
		fds, strangers := map[*contender]int{}, map[*contender]int{}
		to := &unix.SockaddrInet4{Addr: [4]byte{10, 9, 0, 3}, Port: 2000}
		for _, c := range cs {
			c.server.Echo("udp", 2000)
			conn, err := c.peer.Dial("udp", netip.AddrPortFrom(c.server.V4, 2000), netnstest.Patience)
			check(b, err)
			b.Cleanup(func() { _ = conn.Close() })
			check(b, netnstest.Exchange(conn, 4, netnstest.Patience))
			c.sink()
			raw, err := conn.(*net.UDPConn).File()
			check(b, err)
			b.Cleanup(func() { _ = raw.Close() })
			fds[c], strangers[c] = sender(b, c.peer), sender(b, c.stranger)
			c.established = int(raw.Fd())
		}
		send := func(fd int, to unix.Sockaddr) {
			if err := unix.Sendto(fd, []byte("kidoban."), 0, to); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("established/peers=%d", peers), func(b *testing.B) {
			race(b, cs, "packet", func(_ int, c *contender) float64 {
				begin := time.Now()
				for range packetsOfARound {
					if _, err := unix.Write(c.established, []byte("kidoban.")); err != nil {
						b.Fatal(err)
					}
				}
				return float64(time.Since(begin).Nanoseconds()) / packetsOfARound
			})
		})
		b.Run(fmt.Sprintf("first/peers=%d", peers), func(b *testing.B) {
			const rounds = 50_000 / packetsOfARound
			race(b, cs, "packet", func(i int, c *contender) float64 {
				if i%rounds == 0 { // the ports begin anew
					c.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
				}
				first := *to
				begin := time.Now()
				for j := range packetsOfARound {
					first.Port = 3000 + i%rounds*packetsOfARound + j
					send(fds[c], &first)
				}
				return float64(time.Since(begin).Nanoseconds()) / packetsOfARound
			})
		})
		b.Run(fmt.Sprintf("denied/peers=%d", peers), func(b *testing.B) {
			race(b, cs[2:], "packet", func(_ int, c *contender) float64 {
				begin := time.Now()
				for range packetsOfARound {
					send(strangers[c], to)
				}
				return float64(time.Since(begin).Nanoseconds()) / packetsOfARound
			})
		})
	}
}

// BenchmarkOwnNode is of packets from a pod to its own node, to a socket that nobody reads. No answer comes, so each of them opens a flow. A
// node without policies about such traffic has no program there.
func BenchmarkOwnNode(b *testing.B) {
	cs := []*contender{
		{name: "nothing", node: bareNode(b)}, {name: "kidoban", node: newNode(b, dataplane.Options{})}, {name: "judging", node: newNode(b, dataplane.Options{})},
	}
	to := ownAddresses[false]
	fds := map[*contender]int{}
	for _, c := range cs {
		c.peer = c.AddPod("10.9.0.1", "fd09::1")
		c.ownAddress(netip.PrefixFrom(to, 32).String())
		var unread net.PacketConn
		c.Do(func() (err error) {
			unread, err = net.ListenPacket("udp4", netip.AddrPortFrom(to, 2000).String())
			return err
		})
		b.Cleanup(func() { _ = unread.Close() })
		fds[c] = sender(b, c.peer)
		if c.name != "nothing" {
			c.set(c.peer, isolate(policy.Egress))
		}
	}
	cs[2].own(cs[2].peer, 0, denies(policy.Egress, everyone(port(policy.UDP, 53))))
	race(b, cs, "packet", func(_ int, c *contender) float64 {
		begin := time.Now()
		for range packetsOfARound {
			if err := unix.Sendto(fds[c], []byte("kidoban."), 0, &unix.SockaddrInet4{Addr: to.As4(), Port: 2000}); err != nil {
				b.Fatal(err)
			}
		}
		return float64(time.Since(begin).Nanoseconds()) / packetsOfARound
	})
}

// BenchmarkConnections is of TCP as programs use it: one request and its answer on an open connection, and a
// connection from SYN to FIN.
func BenchmarkConnections(b *testing.B) {
	cs := contenders(b, 100)
	conns := map[*contender]net.Conn{}
	for _, c := range cs {
		c.server.Echo("tcp", 2000)
		conn, err := c.peer.Dial("tcp", netip.AddrPortFrom(c.server.V4, 2000), netnstest.Patience)
		check(b, err)
		b.Cleanup(func() { _ = conn.Close() })
		conns[c] = conn
	}
	b.Run("request", func(b *testing.B) {
		const requests = 200
		buf := make([]byte, 64)
		race(b, cs, "request", func(_ int, c *contender) float64 {
			begin := time.Now()
			for range requests {
				if _, err := conns[c].Write(buf); err != nil {
					b.Fatal(err)
				}
				if _, err := conns[c].Read(buf); err != nil {
					b.Fatal(err)
				}
			}
			return float64(time.Since(begin).Nanoseconds()) / requests
		})
	})
	b.Run("connect", func(b *testing.B) {
		const connections = 50
		race(b, cs, "connection", func(_ int, c *contender) (ns float64) {
			c.peer.Do(func() error {
				begin := time.Now()
				for range connections {
					conn, err := net.Dial("tcp", "10.9.0.3:2000")
					if err != nil {
						return err
					}
					_ = conn.Close()
				}
				ns = float64(time.Since(begin).Nanoseconds()) / connections
				return nil
			})
			return ns
		})
	})
}

// under50 are 110 pods under 50 policies that all use one group.
func under50(members []netip.Prefix) *compiler.Compiler {
	c := compiler.New()
	group := policy.GroupKey{Name: "large"}
	c.UpdateGroup(group, members, nil)
	var policies []*policy.Policy
	for i := range 50 {
		p := isolate(policy.Ingress, policy.Rule{Peers: policy.ListPeers(policy.Peer{Group: group}), Ports: []policy.PortRange{port(policy.TCP, uint16(1000+i))}})
		p.ID.Name = fmt.Sprint("policy-", i)
		policies = append(policies, p)
	}
	for i := range 110 {
		addr := netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})
		c.SetPod(addr.String(), compiler.PodSpec{Addresses: []netip.Addr{addr}, Policies: policies})
	}
	return c
}

func hosts(n int) []netip.Prefix {
	var out []netip.Prefix
	for i := range n {
		out = append(out, netip.PrefixFrom(netip.AddrFrom4([4]byte{11, byte(i >> 16), byte(i >> 8), byte(i)}), 32))
	}
	return out
}

// BenchmarkOneAddress joins a group of 10,000 that 50 policies on 110 pods use: compiled, and written to the
// kernel.
func BenchmarkOneAddress(b *testing.B) {
	members := hosts(10_000)
	c := under50(members)
	d := newDataplane(b, dataplane.Options{})
	check(b, d.Apply(c.Commit()))
	group, one := policy.GroupKey{Name: "large"}, []netip.Prefix{netip.MustParsePrefix("12.0.0.1/32")}
	writes := 0
	var cpu time.Duration
	for b.Loop() {
		begin := cpuTime(b)
		c.UpdateGroup(group, one, nil)
		changes := c.Commit()
		check(b, d.Apply(changes))
		cpu += cpuTime(b) - begin
		writes += changes.Len()
		c.UpdateGroup(group, nil, one)
		check(b, d.Apply(c.Commit()))
	}
	b.ReportMetric(float64(cpu.Nanoseconds())/float64(b.N), "cpu-ns/address")
	b.ReportMetric(float64(writes)/float64(b.N), "writes/address")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkNodeFromNothing has 110 pods under 50 policies of 10,000 addresses compiled, loaded and written.
func BenchmarkNodeFromNothing(b *testing.B) {
	members := hosts(10_000)
	for b.Loop() {
		c := under50(members)
		c.Commit()
		d, err := dataplane.New(dataplane.Options{})
		check(b, err)
		_, err = d.Sync(c.Maps(), nil)
		check(b, err)
		check(b, d.Close())
	}
}

// BenchmarkMemoryOfAnAddress is what the kernel takes for one more address of a group, and for the empty map,
// of the default size.
func BenchmarkMemoryOfAnAddress(b *testing.B) {
	const n = 100_000
	memory := func(d *dataplane.Dataplane) float64 {
		info, err := d.Maps().Addresses.Info()
		check(b, err)
		bytes, ok := info.Memlock()
		if !ok {
			b.Fatal("the kernel does not say")
		}
		return float64(bytes)
	}
	for b.Loop() {
		d := newDataplane(b, dataplane.Options{})
		before := memory(d)
		sync(b, d, peers(n))
		b.ReportMetric((memory(d)-before)/n, "B/address")
		b.ReportMetric(before/(1<<20), "MiB-empty")
	}
	b.ReportMetric(0, "ns/op")
}
