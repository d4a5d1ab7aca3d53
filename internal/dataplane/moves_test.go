package dataplane_test

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
)

// An address goes from its old class to its new one in one write, however many entries around it change.
func TestAnAddressMovesInOneWrite(t *testing.T) {
	type networks = map[string]compiler.ClassID
	maps := func(n networks) *compiler.Maps {
		m := &compiler.Maps{Addresses: map[netip.Addr]compiler.ClassID{}, Networks: map[netip.Prefix]compiler.ClassID{}}
		for s, class := range n {
			if p := netip.MustParsePrefix(s); p.IsSingleIP() {
				m.Addresses[p.Addr()] = class
			} else {
				m.Networks[p] = class
			}
		}
		return m
	}
	address := netip.MustParsePrefix("10.1.2.3/32")
	for name, test := range map[string]struct{ before, after networks }{
		"a longer network comes, a shorter one changes":    {networks{"10.0.0.0/8": 1}, networks{"10.0.0.0/8": 2, "10.1.0.0/16": 3, "10.1.2.0/24": 4}},
		"longer networks go":                               {networks{"10.0.0.0/8": 1, "10.1.0.0/16": 2, "10.1.2.0/24": 3}, networks{"10.0.0.0/8": 4}},
		"its own entry goes, its network changes":          {networks{"10.1.2.3/32": 1, "10.1.0.0/16": 2, "10.1.2.0/24": 3}, networks{"10.1.0.0/16": 4}},
		"its own entry comes, its network changes":         {networks{"10.1.0.0/16": 2}, networks{"10.1.2.3/32": 1, "10.1.0.0/16": 4, "10.1.2.0/24": 5}},
		"a network in the middle comes, a longer one goes": {networks{"10.0.0.0/8": 1, "10.1.2.0/24": 2}, networks{"10.0.0.0/8": 3, "10.1.0.0/16": 4}},
	} {
		have := dataplane.NewContents()
		check(t, have.Write(dataplane.Diff(have, maps(test.before)), nothing))
		old, now := have.Decode().Class(address), maps(test.after).Class(address)
		moved := false
		check(t, have.Write(dataplane.Diff(have, maps(test.after)), func() error {
			switch class := have.Decode().Class(address); {
			case class == now:
				moved = true
			case class != old || moved:
				t.Errorf("%s: class %d between %d and %d", name, class, old, now)
			}
			return nil
		}))
		if !moved {
			t.Errorf("%s: not class %d in the end", name, now)
		}
	}
}
