package node

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
)

func TestTrustedResolversComeFromSlicesOfTheSharedNamespace(t *testing.T) {
	s := newStory(t)
	check := func(want string) {
		t.Helper()
		if got := fmt.Sprint(s.Resolvers()); got != want {
			t.Errorf("resolvers %s, want %s", got, want)
		}
		s.Commit()
		if in := slices.SortedFunc(maps.Keys(s.Maps().Resolvers), netip.AddrPort.Compare); fmt.Sprint(in) != want {
			t.Errorf("in the maps %v, want %s", in, want)
		}
	}
	check("[]")
	s.slice(shared, "trusted-resolvers-53", 0, 2, "10.96.0.10/32")
	check("[]") // one slice is missing
	s.slice(shared, "trusted-resolvers-53", 1, 0, "fd00::a/128", "10.0.0.0/8")
	check("[10.96.0.10:53 [fd00::a]:53]")
	s.slice(shared, "trusted-resolvers-5353", 0, 1, "10.0.0.7/32", "10.96.0.10/32")
	check("[10.0.0.7:5353 10.96.0.10:53 10.96.0.10:5353 [fd00::a]:53]")
	s.slice("shop", "trusted-resolvers-53", 0, 1, "10.0.0.66/32") // a tenant's
	s.slice(shared, "trusted-resolvers-053", 0, 1, "10.0.0.66/32")
	check("[10.0.0.7:5353 10.96.0.10:53 10.96.0.10:5353 [fd00::a]:53]")

	// An address stays while a slice has it.
	s.slice(shared, "trusted-resolvers-53", 1, 0, "10.96.0.10/32")
	s.slice(shared, "trusted-resolvers-53", 0, 2)
	check("[10.0.0.7:5353 10.96.0.10:53 10.96.0.10:5353]")
	for i := range 2 {
		s.sliceGone(shared, "trusted-resolvers-53", i)
	}
	s.slice(shared, "trusted-resolvers-5353", 0, 1, "10.0.0.8/32")
	check("[10.0.0.8:5353]")
	s.slice(shared, "trusted-resolvers-53", 0, 1, "10.96.0.11/32")
	check("[10.0.0.8:5353 10.96.0.11:53]")
	if c := s.Counts(); c.Groups != 0 {
		t.Errorf("%d groups that policies use", c.Groups)
	}
}
