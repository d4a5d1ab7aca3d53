package dataplane_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	stdsync "sync"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

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

func (r record) wire() []byte {
	b := []byte{0xc0, 12}
	b = binary.BigEndian.AppendUint16(b, r.kind)
	b = binary.BigEndian.AppendUint16(b, 1)
	b = binary.BigEndian.AppendUint32(b, r.ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.data)))
	return append(b, r.data...)
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
		b = append(b, r.wire()...)
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
	go z.serve(conn)
	return z
}

// serve answers what comes in.
func (z *zone) serve(conn net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(z.answer(buf[:n]), from)
	}
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
