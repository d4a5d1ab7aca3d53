package dataplane_test

import (
	"encoding/binary"
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/netnstest"
)

var hostileAnswers = flag.Int("hostile-answers", 2000, "how many random DNS messages the program and a second reader read")

// A dnsReader reads a message in another way than the program does: each part is cut off from the rest.
type dnsReader struct {
	all, rest []byte
}

func (r *dnsReader) take(n int) []byte {
	if n > len(r.rest) {
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *dnsReader) number() (uint16, bool) {
	b := r.take(2)
	if b == nil {
		return 0, false
	}
	return binary.BigEndian.Uint16(b), true
}

// name reads a name. The labels before a pointer are all that it returns; a pointer leads back.
func (r *dnsReader) name(mayPoint bool) (labels []string, ok bool) {
	start := len(r.all) - len(r.rest)
	for size := 0; ; {
		b := r.take(1)
		if b == nil {
			return nil, false
		}
		switch n := int(b[0]); {
		case n >= 0xc0:
			low := r.take(1)
			return labels, mayPoint && low != nil && (n&0x3f)<<8|int(low[0]) < start
		case n > 63:
			return nil, false
		case n == 0:
			return labels, size+1 <= 255
		default:
			label := r.take(n)
			if size += 1 + n; label == nil || size > 255 {
				return nil, false
			}
			labels = append(labels, string(label))
		}
	}
}

// addressesOf are those that a message gives as the answer to a question, or nothing if anything is wrong with it.
func addressesOf(message []byte, id uint16, name string, kind uint16) []netip.Addr {
	r := &dnsReader{all: message, rest: message}
	header := r.take(12)
	if header == nil || binary.BigEndian.Uint16(header) != id {
		return nil
	}
	flags := binary.BigEndian.Uint16(header[2:])
	if flags>>15 == 0 || flags>>11&0xf != 0 || flags&0xf != 0 || flags>>9&1 == 1 || binary.BigEndian.Uint16(header[4:]) != 1 {
		return nil
	}
	labels, ok := r.name(false)
	asked, ok1 := r.number()
	class, ok2 := r.number()
	if !ok || !ok1 || !ok2 || !strings.EqualFold(strings.Join(labels, "."), name) || len(labels) != strings.Count(name, ".")+1 || asked != kind || class != 1 {
		return nil
	}
	var out []netip.Addr
	answers, records := int(binary.BigEndian.Uint16(header[6:])), 0
	for i := 6; i < 12; i += 2 {
		records += int(binary.BigEndian.Uint16(header[i:]))
	}
	for i := range records {
		_, named := r.name(true)
		fixed := r.take(10)
		if !named || fixed == nil {
			return nil
		}
		recordKind, recordClass := binary.BigEndian.Uint16(fixed), binary.BigEndian.Uint16(fixed[2:])
		data := r.take(int(binary.BigEndian.Uint16(fixed[8:])))
		if data == nil {
			return nil
		}
		if recordKind == 41 && fixed[4] != 0 {
			return nil
		}
		if i < answers && recordKind == kind && recordClass == 1 {
			addr, ok := netip.AddrFromSlice(data)
			if !ok || addr.Is4() != (kind == typeA) {
				return nil
			}
			out = append(out, addr)
		}
	}
	if len(r.rest) > 0 {
		return nil
	}
	return out
}

// hostile spoils a message, or not.
func hostile(r *rand.Rand, b []byte) []byte {
	b = slices.Clone(b)
	for range r.IntN(4) {
		at := r.IntN(len(b))
		switch r.IntN(7) {
		case 0:
			b[at] = byte(r.Uint32())
		case 1:
			b[at] ^= 1 << r.IntN(8)
		case 2:
			b = b[:max(1, at)]
		case 3:
			b = append(b, byte(r.Uint32()))
		case 4:
			b = slices.Insert(b, at, 0xc0, byte(r.Uint32()))
		case 5:
			if len(b) >= 12 { // a number of records
				b[4+r.IntN(8)] = byte(r.IntN(3))
			}
		case 6:
			b[at] = byte(63 + r.IntN(3))
		}
	}
	return b
}

// The program learns from a hostile message exactly what a second reader finds in it.
func TestHostileAnswers(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	n := newNameNode(t, withNames)
	const name = "api.example.com"
	n.allow(named([]string{name, "*.example.com"}))
	c, err := n.client.Dial("udp", netip.AddrPortFrom(n.resolver.V4, 53), netnstest.Patience)
	check(t, err)
	defer func() { _ = c.Close() }()

	never := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
		netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("255.255.255.255/32"),
		netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8")}
	taught := 0
	for i := range *hostileAnswers {
		id, kind := uint16(i), uint16(typeA)
		if r.IntN(2) == 0 {
			kind = typeAAAA
		}
		var records []record
		for range r.IntN(4) {
			records = append(records, []record{
				addressRecord(netip.AddrFrom4([4]byte{198, 51, 100, byte(r.IntN(9))}), r.Uint32()),
				addressRecord(netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: byte(r.IntN(9))}), 60),
				{typeCNAME, 60, dnsName("a.other.test")},
				{16, 60, []byte("\x04text")},
				{41, r.Uint32() & 0x00ffffff, nil},
			}[r.IntN(5)])
		}
		sent := hostile(r, dnsMessage(id, dnsAnswer, "API.example.com", kind, records...))
		n.zone.mu.Lock()
		n.zone.change = func([]byte) []byte { return sent }
		n.zone.mu.Unlock()
		askOver(t, c, id, name, kind)

		var want []netip.Addr
		for _, a := range addressesOf(sent, id, name, kind) {
			if !a.Is4In6() && !slices.ContainsFunc(never, func(p netip.Prefix) bool { return p.Contains(a) }) && !slices.Contains(want, a) {
				want = append(want, a)
			}
		}
		got := n.takeLearned()
		slices.SortFunc(want, netip.Addr.Compare)
		if !slices.Equal(got, want) {
			t.Fatalf("seed %d: message %d %x (kind %d): learned %v, want %v", seed, i, sent, kind, got, want)
		}
		taught += min(1, len(want))
	}
	if taught < *hostileAnswers/20 {
		t.Errorf("only %d of %d messages taught something", taught, *hostileAnswers)
	}
}

// takeLearned returns the learned addresses, and makes the program forget them, and what was asked.
func (n *nameNode) takeLearned() []netip.Addr {
	n.t.Helper()
	var out []netip.Addr
	takeAll(n.t, n.d.Maps().Learned, func(a bpf.FilterAddress) { out = append(out, a.Decode()) })
	takeAll(n.t, n.d.Maps().Asked, func([40]byte) {}) // an answer with another's ID is not to find an earlier question
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// takeAll deletes the entries of a map.
func takeAll[K any](t testing.TB, m *ebpf.Map, each func(K)) {
	t.Helper()
	for {
		var key K
		err := m.NextKey(nil, &key)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return
		}
		check(t, err)
		each(key)
		check(t, m.Delete(&key))
	}
}
