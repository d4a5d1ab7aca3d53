package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	stdsync "sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// withNames is an Options of a Dataplane that learns names.
var withNames = dataplane.Options{Names: dataplane.NameOptions{On: true}, Sizes: dataplane.Sizes{Learned: 1 << 13, Names: 1 << 10}}

const (
	typeA     = 1
	typeCNAME = 5
	typeAAAA  = 28
)

// dnsName is a name on the wire.
func dnsName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}

// record is one of an answer's; it belongs to the question's name.
type record struct {
	kind uint16
	ttl  uint32
	data []byte
}

func addressRecord(a netip.Addr, ttl uint32) record {
	if a.Is4() {
		return record{typeA, ttl, a.AsSlice()}
	}
	return record{typeAAAA, ttl, a.AsSlice()}
}

// dnsMessage is a question, with the records of its answer.
func dnsMessage(id, flags uint16, name string, kind uint16, records ...record) []byte {
	var b []byte
	for _, n := range []uint16{id, flags, 1, uint16(len(records)), 0, 0} {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	b = append(b, dnsName(name)...)
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, 1)
	for _, r := range records {
		b = append(b, 0xc0, 12)
		b = binary.BigEndian.AppendUint16(b, r.kind)
		b = binary.BigEndian.AppendUint16(b, 1)
		b = binary.BigEndian.AppendUint32(b, r.ttl)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.data)))
		b = append(b, r.data...)
	}
	return b
}

const (
	dnsQuery  = 0x0100
	dnsAnswer = 0x8180
)

// zone answers questions, in lower case.
type zone struct {
	mu      stdsync.Mutex
	answers map[string][]netip.Addr
	ttl     uint32
	change  func(message []byte) []byte // what is sent in its place; nil: nothing else
}

func (z *zone) set(name string, addrs ...netip.Addr) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.answers[name] = addrs
}

// answer is the answer to a question.
func (z *zone) answer(question []byte) []byte {
	z.mu.Lock()
	defer z.mu.Unlock()
	name, kind := readQuestion(question)
	var records []record
	for _, a := range z.answers[strings.ToLower(name)] {
		if r := addressRecord(a, z.ttl); r.kind == kind {
			records = append(records, r)
		}
	}
	out := dnsMessage(binary.BigEndian.Uint16(question), dnsAnswer, name, kind, records...)
	if z.change != nil {
		return z.change(out)
	}
	return out
}

func readQuestion(b []byte) (name string, kind uint16) {
	var labels []string
	at := 12
	for b[at] != 0 {
		labels = append(labels, string(b[at+1:at+1+int(b[at])]))
		at += 1 + int(b[at])
	}
	return strings.Join(labels, "."), binary.BigEndian.Uint16(b[at+1:])
}

// resolve makes a namespace a resolver on a UDP port.
func resolve(t testing.TB, n *netnstest.Namespace, port int) *zone {
	t.Helper()
	z := &zone{answers: map[string][]netip.Addr{}, ttl: 300}
	var conn net.PacketConn
	n.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteTo(z.answer(buf[:n]), from)
		}
	}()
	return z
}

// ask asks a resolver for a name and waits for the answer.
func ask(t testing.TB, from *netnstest.Pod, resolver netip.AddrPort, name string, kind uint16) {
	t.Helper()
	c, err := from.Dial("udp", resolver, netnstest.Patience)
	check(t, err)
	defer func() { _ = c.Close() }()
	askOver(t, c, 7, name, kind)
}

func askOver(t testing.TB, c net.Conn, id uint16, name string, kind uint16) {
	t.Helper()
	check(t, c.SetDeadline(time.Now().Add(netnstest.Patience)))
	_, err := c.Write(dnsMessage(id, dnsQuery, name, kind))
	check(t, err)
	_, err = c.Read(make([]byte, 1<<16))
	check(t, err)
}

// named allows these ports, or all, of what these names resolve to.
func named(names []string, ports ...policy.PortRange) policy.Rule {
	return policy.Rule{Peers: []policy.Peer{{DomainNames: names}}, Ports: ports, EveryPort: ports == nil}
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
	n.compiler.SetResolvers([]netip.AddrPort{netip.AddrPortFrom(n.resolver.V4, 53), netip.AddrPortFrom(n.resolver.V6, 53)})
	return n
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
