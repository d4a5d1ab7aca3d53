package dataplane_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

const hold = time.Minute

// flows are those of pods, seen from the node.
func (n *node) flows(addrs ...netip.Addr) []conntrack.Flow {
	n.t.Helper()
	var out []conntrack.Flow
	n.Do(func() error {
		for flows, err := range conntrack.Flows(addrs...) {
			if err != nil {
				return err
			}
			out = append(out, flows...)
		}
		return nil
	})
	return out
}

func (n *node) cut(flows ...conntrack.Flow) {
	n.t.Helper()
	n.Do(func() error { return n.d.Cut(flows, hold) })
}

// serve takes one flow of "tcp" or "udp" in a pod and hands over the server's end after its first message, to
// be used for pushing.
func serve(t testing.TB, p *netnstest.Pod, network string, port uint16) <-chan net.Conn {
	t.Helper()
	accepted := make(chan net.Conn, 1)
	p.Do(func() error {
		if network == "udp" {
			c, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
			if err != nil {
				return err
			}
			t.Cleanup(func() { _ = c.Close() })
			go func() {
				buf := make([]byte, 64)
				if _, from, err := c.ReadFromUDP(buf); err == nil {
					accepted <- pusher{c, from}
				}
			}()
			return nil
		}
		l, err := net.ListenTCP("tcp", &net.TCPAddr{Port: int(port)})
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = l.Close() })
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { _ = c.Close() })
			if _, err := c.Read(make([]byte, 64)); err == nil {
				accepted <- c
			}
		}()
		return nil
	})
	return accepted
}

// pusher writes to one client of a UDP server.
type pusher struct {
	*net.UDPConn
	to *net.UDPAddr
}

func (p pusher) Write(b []byte) (int, error) { return p.WriteToUDP(b, p.to) }

// push writes on one end and reports whether it arrives at the other.
func push(t testing.TB, from, to net.Conn, within time.Duration) bool {
	t.Helper()
	if _, err := from.Write([]byte("push")); err != nil {
		t.Fatal(err)
	}
	check(t, to.SetReadDeadline(time.Now().Add(within)))
	_, err := to.Read(make([]byte, 64))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

// live opens a flow through the node and returns both ends.
func live(t testing.TB, client, server *netnstest.Pod, network string, to netip.AddrPort, port uint16) (clientEnd, serverEnd net.Conn) {
	t.Helper()
	accepted := serve(t, server, network, port)
	clientEnd, err := client.Dial(network, to, netnstest.Patience)
	check(t, err)
	t.Cleanup(func() { _ = clientEnd.Close() })
	_, err = clientEnd.Write([]byte("open"))
	check(t, err)
	select {
	case serverEnd = <-accepted:
	case <-time.After(netnstest.Patience):
		t.Fatal("the flow did not open")
	}
	return clientEnd, serverEnd
}

func TestCut(t *testing.T) {
	for _, network := range []string{"udp", "tcp"} {
		t.Run(network, func(t *testing.T) {
			bothFamilies(t, func(t *testing.T, v6 bool) {
				n := newNode(t, dataplane.Options{})
				a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
				n.set(b, isolate(policy.Ingress, with(pods(a))))
				to := netip.AddrPortFrom(b.Addr(v6), 8080)
				client, server := live(t, a, b, network, to, 8080)
				if !push(t, server, client, netnstest.Patience) || !push(t, client, server, netnstest.Patience) && network == "tcp" {
					t.Fatal("the flow does not work")
				}

				n.set(b, isolate(policy.Ingress))
				if !push(t, server, client, netnstest.Patience) {
					t.Error("a live flow ended by itself")
				}
				found := n.flows(b.Addr(v6))
				if len(found) != 1 || found[0].Opened() != (policy.Flow{Source: a.Addr(v6), Destination: to.Addr(), Protocol: found[0].Protocol, Port: 8080}) {
					t.Fatalf("flows %+v", found)
				}
				began := time.Now()
				n.cut(found...)
				n.cut(found...) // gone already
				if push(t, client, server, netnstest.Silence) {
					t.Error("the client still gets through")
				}
				if push(t, server, client, netnstest.Silence) {
					t.Error("the server opened the flow again")
				}
				if got := n.flows(a.Addr(v6)); len(got) != 0 {
					t.Errorf("flows are left: %+v", got)
				}
				n.restart()
				if push(t, server, client, netnstest.Silence) {
					t.Error("the server opened the flow again after a restart")
				}

				// Flows that were not cut still work, also from the server to the client.
				a.Echo("tcp", 9999)
				reaches(t, b, "tcp", a.Addr(v6), 9999)

				// Allowed again, the client's packets open the flow and the server's pass.
				n.set(b, isolate(policy.Ingress, with(pods(a))))
				_, err := client.Write([]byte("again"))
				check(t, err)
				// TCP at either end waits twice as long before each time that it sends again.
				deadline := time.Now().Add(netnstest.Patience + 4*time.Since(began))
				for !push(t, server, client, netnstest.Silence) {
					if time.Now().After(deadline) {
						t.Fatal("the flow stays cut though it is allowed again")
					}
					_, err := client.Write([]byte("again"))
					check(t, err)
				}
			})
		})
	}
}

func TestCutOfAServicesFlow(t *testing.T) {
	bothFamilies(t, func(t *testing.T, v6 bool) {
		n := newNode(t, dataplane.Options{})
		a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
		n.nft(services)
		vip := netip.AddrPortFrom(virtual(v6, 1), 80)
		client, server := live(t, a, b, "tcp", vip, 8080)
		found := n.flows(a.Addr(v6))
		if len(found) != 1 || found[0].Original.Destination != vip || found[0].Opened().Destination != b.Addr(v6) || found[0].Opened().Port != 8080 {
			t.Fatalf("flows %+v", found)
		}
		n.set(a, isolate(policy.Egress))
		n.cut(found...)
		if push(t, server, client, netnstest.Silence) || push(t, client, server, netnstest.Silence) {
			t.Error("the flow still works")
		}
	})
}

// The reply of a cut flow is held off; a connection that the server opens between the same ports is not.
func TestCutLeavesNewConnections(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	client, _ := live(t, a, b, "tcp", netip.AddrPortFrom(b.V4, 8080), 8080)
	n.set(b, isolate(policy.Ingress))
	reply := flow(b.V4.String(), a.V4.String(), policy.TCP, client.LocalAddr().(*net.TCPAddr).AddrPort().Port())
	n.cut(n.flows(a.V4)...)
	run := newRunner(t, n.d)
	if run.passes(packet{Flow: reply, sport: 8080, flags: 0x10}) {
		t.Error("a reply passed")
	}
	if run.passes(packet{Flow: reply, sport: 8080, flags: 0x12}) {
		t.Error("a SYN-ACK passed")
	}
	if !run.passes(packet{Flow: reply, sport: 8080, flags: 0x02}) {
		t.Error("a SYN was held off")
	}
	if !run.passes(packet{Flow: reply, sport: 8081, flags: 0x10}) {
		t.Error("a packet from another port was held off")
	}
	if n := denied(t, n.d)[events.ReasonRevoked]; n != 2 {
		t.Errorf("counted %d, want 2", n)
	}
}

func TestHoldingEnds(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	client, server := live(t, a, b, "udp", netip.AddrPortFrom(b.V4, 8080), 8080)
	n.set(b, isolate(policy.Ingress))
	found := n.flows(a.V4)
	n.Do(func() error { return n.d.Cut(found, 0) })
	if !push(t, server, client, netnstest.Patience) {
		t.Error("the server is held off for ever")
	}
}

// Few addresses are asked for one by one, many by reading everything: the answer is the same.
func TestFlows(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	a, b, c := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2"), n.AddPod("10.9.0.3", "fd09::3")
	b.Echo("udp", 53)
	b.Echo("tcp", 53)
	for _, p := range pods(a, c) {
		for _, v6 := range []bool{false, true} {
			reaches(t, p, "udp", b.Addr(v6), 53)
			reaches(t, p, "tcp", b.Addr(v6), 53)
			if !ping(t, p, b.Addr(v6), netnstest.Patience) {
				t.Errorf("%v does not ping %v", p.V4, b.Addr(v6))
			}
		}
	}
	name := func(f conntrack.Flow) string {
		o := f.Opened()
		return o.Protocol.String() + " " + o.Source.String() + " " + o.Destination.String()
	}
	names := func(flows []conntrack.Flow) []string {
		var out []string
		for _, f := range flows {
			out = append(out, name(f))
		}
		slices.Sort(out)
		return out
	}
	unused := []netip.Addr{netip.MustParseAddr("10.1.1.1"), netip.MustParseAddr("10.1.1.2"), netip.MustParseAddr("10.1.1.3"), netip.MustParseAddr("fd01::1")}
	for _, test := range []struct {
		addrs []netip.Addr
		want  []string
	}{
		{nil, nil},
		{[]netip.Addr{a.V4}, []string{"ICMP 10.9.0.1 10.9.0.2", "TCP 10.9.0.1 10.9.0.2", "UDP 10.9.0.1 10.9.0.2"}},
		{[]netip.Addr{c.V6}, []string{"ICMPv6 fd09::3 fd09::2", "TCP fd09::3 fd09::2", "UDP fd09::3 fd09::2"}},
		{[]netip.Addr{b.V6, a.V6}, []string{
			"ICMPv6 fd09::1 fd09::2", "ICMPv6 fd09::3 fd09::2", "TCP fd09::1 fd09::2", "TCP fd09::3 fd09::2", "UDP fd09::1 fd09::2", "UDP fd09::3 fd09::2",
		}},
	} {
		if got := names(n.flows(test.addrs...)); !slices.Equal(got, test.want) {
			t.Errorf("flows of %v:\n%v, want\n%v", test.addrs, got, test.want)
		}
		if got := names(n.flows(append(test.addrs, unused...)...)); !slices.Equal(got, test.want) {
			t.Errorf("flows of %v and some others:\n%v, want\n%v", test.addrs, got, test.want)
		}
	}
	for _, f := range n.flows(b.V4, b.V6) {
		n.cut(f)
	}
	if got := n.flows(b.V4, b.V6); len(got) != 0 {
		t.Errorf("after cutting all: %v", names(got))
	}
}

// FTP's server opens a flow of its own to the client, for the sake of one that the client opened.
func TestMastersOfExpectedFlows(t *testing.T) {
	n := newNode(t, dataplane.Options{})
	n.nft(`table ip test {
		ct helper ftp { type "ftp" protocol tcp; }
		chain prerouting { type filter hook prerouting priority filter; tcp dport 21 ct helper set "ftp"; }
	}`)
	a, b := n.AddPod("10.9.0.1", "fd09::1"), n.AddPod("10.9.0.2", "fd09::2")
	n.set(a, isolate(policy.Ingress))
	const data = 200<<8 + 10
	a.Echo("tcp", data)
	isKept(t, b, "tcp", a.V4, data)
	client, server := live(t, a, b, "tcp", netip.AddrPortFrom(b.V4, 21), 21)
	for _, line := range []string{"\n", "PORT 10,9,0,1,200,10\r\n"} { // conntrack begins to read at the first end of a line
		_, err := client.Write([]byte(line))
		check(t, err)
		_, err = server.Read(make([]byte, 64))
		check(t, err)
	}
	c, err := b.Dial("tcp", netip.AddrPortFrom(a.V4, data), netnstest.Patience)
	check(t, err)
	t.Cleanup(func() { _ = c.Close() })
	check(t, netnstest.Exchange(c, 64, netnstest.Patience))

	control := flow("10.9.0.1", "10.9.0.2", policy.TCP, 21)
	masters := func(addrs ...netip.Addr) map[policy.Flow][]policy.Flow {
		out := map[policy.Flow][]policy.Flow{}
		for _, f := range n.flows(addrs...) {
			out[f.Opened()] = f.Masters
		}
		return out
	}
	want := map[policy.Flow][]policy.Flow{control: nil, flow("10.9.0.2", "10.9.0.1", policy.TCP, data): {control}}
	for _, addrs := range [][]netip.Addr{{a.V4}, {a.V4, b.V4, a.V6, b.V6}} {
		if got := masters(addrs...); !reflect.DeepEqual(got, want) {
			t.Errorf("flows of %v with their masters: %v, want %v", addrs, got, want)
		}
	}
	for _, f := range n.flows(a.V4) {
		if f.Opened() == control {
			n.cut(f)
		}
	}
	delete(want, control)
	want[flow("10.9.0.2", "10.9.0.1", policy.TCP, data)] = nil
	if got := masters(a.V4); !reflect.DeepEqual(got, want) {
		t.Errorf("after the master was cut: %v, want %v", got, want)
	}
}
