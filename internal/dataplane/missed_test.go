package dataplane_test

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// Why an address was not learned, or is not valid any more, is remembered under the name that led to it.
func TestWhyAnAddressWasNotLearned(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	bothFamilies(t, func(t *testing.T, v6 bool) {
		addr := func(last byte) netip.Addr {
			if v6 {
				return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: last})
			}
			return netip.AddrFrom4([4]byte{198, 51, 100, last})
		}
		miss := func(last byte, reason dataplane.MissReason, name string) {
			t.Helper()
			got, ok := n.d.MissOf(addr(last))
			if ok != (reason != 0) || got.Reason != reason || got.Name != name || ok && time.Since(got.At).Abs() > time.Minute {
				t.Errorf("%v: %+v, %v; want reason %d, %q", addr(last), got, ok, reason, name)
			}
		}
		n.zone.set("api.example.com.shop.svc.cluster.local", addr(1))
		n.ask(v6, "api.example.com.shop.svc.cluster.local")
		miss(1, dataplane.MissOtherName, "api.example.com.shop.svc.cluster.local")
		if n.isLearned(addr(1)) {
			t.Error("another name's address was learned")
		}

		n.zone.set("api.example.com", addr(2))
		n.ask(v6, "api.example.com")
		miss(2, 0, "")
		if got := n.d.ValidPatternsOf(addr(2)); len(got) != 1 {
			t.Errorf("valid patterns %v", got)
		}
		n.d.ExpireNames(t)
		if got := n.d.ValidPatternsOf(addr(2)); got != nil {
			t.Errorf("valid patterns %v", got)
		}
		n.Do(n.d.ForgetNames)
		miss(2, dataplane.MissExpired, "api.example.com")

		n.compiler.SetResolvers(nil)
		check(t, n.d.Apply(n.compiler.Collect()))
		n.zone.set("api.example.com", addr(3))
		n.ask(v6, "API.example.com")
		miss(3, dataplane.MissUntrusted, "api.example.com")
		if n.isLearned(addr(3)) {
			t.Error("an address was learned from a resolver that is not trusted")
		}
		n.trust()
	})
}

const typeHTTPS = 65

// httpsRecord has a target and parameters, each with its key before it.
func httpsRecord(target []byte, params ...[]byte) record {
	data := append([]byte{0, 1}, target...)
	for _, p := range params {
		data = append(data, p...)
	}
	return record{typeHTTPS, 300, data}
}

func httpsParam(key uint16, value []byte) []byte {
	b := binary.BigEndian.AppendUint16(nil, key)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// Hints of HTTPS records teach nothing, and are remembered as what led to their addresses.
func TestHintsOfHTTPSRecords(t *testing.T) {
	n := newNameNode(t, withNames)
	n.allow(named([]string{"api.example.com"}))
	v4 := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, last}) }
	v6 := func(last byte) netip.Addr { return netip.AddrFrom16([16]byte{0: 0x20, 1: 1, 15: last}) }
	hints := func(key uint16, addrs ...netip.Addr) []byte {
		var value []byte
		for _, a := range addrs {
			value = append(value, a.AsSlice()...)
		}
		return httpsParam(key, value)
	}
	root, alpn := []byte{0}, httpsParam(1, []byte("\x02h2\x02h3"))
	for _, tc := range []struct {
		what, name string
		records    []record
		want       map[netip.Addr]dataplane.MissReason
	}{
		{
			"both kinds, behind other parameters", "api.example.com",
			[]record{httpsRecord(root, alpn, hints(4, v4(1), v4(2)), httpsParam(5, make([]byte, 200)), hints(6, v6(1), v6(2)))},
			map[netip.Addr]dataplane.MissReason{v4(1): dataplane.MissHint, v4(2): dataplane.MissHint, v6(1): dataplane.MissHint, v6(2): dataplane.MissHint},
		},
		{
			"with a target, in the second record", "api.example.com",
			[]record{httpsRecord(dnsName("cdn.example.net")), httpsRecord(dnsName("a.b.cdn.example.net"), hints(4, v4(3)))},
			map[netip.Addr]dataplane.MissReason{v4(3): dataplane.MissHint},
		},
		{"of another name", "other.example.com", []record{httpsRecord(root, hints(4, v4(4)))}, map[netip.Addr]dataplane.MissReason{v4(4): dataplane.MissOtherName}},
		{
			"longer than its record, or than an address", "api.example.com",
			[]record{httpsRecord(root, hints(4, v4(5))[:7]), httpsRecord(root, httpsParam(4, v4(6).AsSlice()[:3])), httpsRecord(root, hints(4, v4(7)))},
			map[netip.Addr]dataplane.MissReason{v4(5): 0, v4(6): 0, v4(7): dataplane.MissHint},
		},
		{"behind a pointer", "api.example.com", []record{httpsRecord([]byte{0xc0, 12}, hints(4, v4(8)))}, map[netip.Addr]dataplane.MissReason{v4(8): 0}},
		{"without any", "api.example.com", []record{{typeHTTPS, 300, nil}, {typeHTTPS, 300, []byte{0}}, httpsRecord(root)}, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			n.zone.answerWith(tc.records...)
			ask(t, n.client, netip.AddrPortFrom(n.resolver.V4, 53), tc.name, typeHTTPS)
			for a, reason := range tc.want {
				if got, ok := n.d.MissOf(a); ok != (reason != 0) || got.Reason != reason || ok && got.Name != tc.name {
					t.Errorf("%v: %+v, want reason %d", a, got, reason)
				}
				if n.isLearned(a) {
					t.Errorf("%v was learned", a)
				}
			}
		})
	}
	if got := n.answers("malformed"); got != 0 {
		t.Errorf("%d answers counted as malformed, want none", got)
	}
}

// An address for which there is no room is remembered as such.
func TestAnAddressAtTheLimit(t *testing.T) {
	opts := withNames
	opts.Sizes.Learned = 16
	n := newNameNode(t, opts)
	n.allow(named([]string{"api.example.com"}))
	var addrs []netip.Addr
	for i := range 100 {
		addrs = append(addrs, netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}))
	}
	n.zone.set("api.example.com", addrs...)
	n.ask(false, "api.example.com")
	for _, a := range addrs {
		if n.isLearned(a) {
			continue
		}
		if got, ok := n.d.MissOf(a); ok && got.Reason == dataplane.MissLimit && got.Name == "api.example.com" {
			return
		}
	}
	t.Error("no address is known to be beyond the limit")
}
