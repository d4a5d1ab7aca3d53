package dataplane_test

import (
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
