package dataplane_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
	"github.com/kidoban/kidoban/internal/policy"
)

// serveStreams makes the zone answer over TCP too. Each answer is cut at these offsets, counted from its length on.
func (z *zone) serveStreams(t testing.TB, n *netnstest.Namespace, cuts func(out []byte) []int) {
	t.Helper()
	var l net.Listener
	n.Do(func() (err error) {
		l, err = net.Listen("tcp", ":53")
		return err
	})
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				for {
					question, err := readStream(c)
					if err != nil {
						return
					}
					answer := z.answer(question)
					out := append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)
					from := 0
					for _, to := range append(cuts(out), len(out)) {
						_, _ = c.Write(out[from:to])
						from = to
					}
				}
			}()
		}
	}()
}

// readStream reads one message.
func readStream(c io.Reader) ([]byte, error) {
	var size [2]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	b := make([]byte, binary.BigEndian.Uint16(size[:]))
	_, err := io.ReadFull(c, b)
	return b, err
}

// askStream asks questions on one connection, and waits for each answer.
func (n *nameNode) askStream(v6 bool, names ...string) {
	n.t.Helper()
	c, err := n.client.Dial("tcp", netip.AddrPortFrom(n.resolver.Addr(v6), 53), netnstest.Patience)
	check(n.t, err)
	defer func() { _ = c.Close() }()
	check(n.t, c.SetDeadline(time.Now().Add(netnstest.Patience)))
	for _, name := range names {
		question := dnsMessage(7, dnsQuery, name, kindOf(v6))
		_, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(question))), question...))
		check(n.t, err)
		_, err = readStream(c)
		check(n.t, err)
	}
}

func TestAnswersOverTCP(t *testing.T) {
	for name, cuts := range map[string]func(out []byte) []int{
		"in one piece":     func([]byte) []int { return nil },
		"in halves":        func(out []byte) []int { return []int{len(out) / 2} },
		"the length first": func([]byte) []int { return []int{2} },
		"in crumbs": func(out []byte) (at []int) {
			for i := 1; i < len(out); i += 100 {
				at = append(at, i)
			}
			return at
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNameNode(t, withNames)
			n.zone.serveStreams(t, n.resolver.Namespace, cuts)
			n.set(n.client, isolate(policy.Egress, with(pods(n.resolver)), named([]string{"*.example.com"})))
			bothFamilies(t, func(t *testing.T, v6 bool) {
				var names []string
				var want []netip.Addr
				for i := range 3 {
					names = append(names, fmt.Sprintf("n%d.example.com", i))
					var addrs []netip.Addr
					for j := range 60 {
						a := netip.AddrFrom4([4]byte{198, 51, byte(i), byte(j)})
						if v6 {
							a = netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 14: byte(i), 15: byte(j)})
						}
						addrs = append(addrs, a)
					}
					n.zone.set(names[i], addrs...)
					want = append(want, addrs...)
				}
				names = append(names, "unwanted.test")
				n.askStream(v6, names...)
				for _, a := range want {
					if !n.isLearned(a) {
						t.Fatalf("%v was not learned", a)
					}
				}
			})
		})
	}
}

// A text in another answer is no answer, even if it is one by itself and stands in a segment of its own.
func TestATextOverTCPIsNoAnswer(t *testing.T) {
	n := newNameNode(t, withNames)
	addr := netip.MustParseAddr("198.51.100.1")
	inner := dnsMessage(7, dnsAnswer, "api.example.com", typeA, addressRecord(addr, 300))
	text := append(binary.BigEndian.AppendUint16(nil, uint16(len(inner))), inner...)
	n.zone.change = func(message []byte) []byte {
		return append(message, record{16, 300, append([]byte{byte(len(text))}, text...)}.wire()...)
	}
	n.zone.serveStreams(t, n.resolver.Namespace, func(out []byte) []int { return []int{bytes.Index(out, text)} })
	n.set(n.client, isolate(policy.Egress, with(pods(n.resolver)), named([]string{"api.example.com"})))
	n.askStream(false, "evil.test")
	if n.isLearned(addr) {
		t.Error("a text was taken for an answer")
	}
}
