package resolver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func TestABlockWithManyExceptsIsSplitInHalves(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	for _, c := range []struct {
		cidr   string
		except func() string
	}{
		{"10.0.0.0/8", func() string { return fmt.Sprintf("10.%d.%d.0/24", rng.IntN(256), rng.IntN(256)) }},
		{"10.0.0.0/24", func() string { return fmt.Sprintf("10.0.0.%d/32", rng.IntN(256)) }},
		{"0.0.0.0/0", func() string { return fmt.Sprintf("%d.0.0.0/%d", rng.IntN(256), 1+rng.IntN(10)) }},
		{"2001:db8::/32", func() string { return fmt.Sprintf("2001:db8:%x::/48", rng.IntN(65536)) }},
	} {
		b := &networkingv1.IPBlock{CIDR: c.cidr}
		for range 200 {
			b.Except = append(b.Except, c.except())
		}
		parsed, err := parseBlock(b)
		if err != nil {
			t.Fatal(err)
		}
		peers := parsed.peers()
		for _, p := range peers {
			if len(p.Except) > v1alpha1.MaxExceptsPerPeer {
				t.Errorf("%s has %d excepts", p.CIDR, len(p.Except))
			}
		}
		cidr := netip.MustParsePrefix(c.cidr)
		for range 20000 {
			a := randomAddr(rng, cidr)
			if want, got := blockHolds(c.cidr, b.Except, a), peersHold(peers, a); want != got {
				t.Fatalf("%s in %s: %d peers, want %d", a, c.cidr, got, want)
			}
		}
	}
}

// randomAddr draws an address whose first 24 (48) bits are inside the block, or nearly.
func randomAddr(rng *rand.Rand, p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		if i >= p.Bits()/8 && (i < 6 || rng.IntN(2) == 0) {
			b[i] = byte(rng.IntN(256))
		}
	}
	addr, _ := netip.AddrFromSlice(b)
	return addr
}

// blockHolds is 1 if an ipBlock as it is written holds the address, else 0.
func blockHolds(cidr string, except []string, a netip.Addr) int {
	if !netip.MustParsePrefix(cidr).Contains(a) {
		return 0
	}
	for _, e := range except {
		if netip.MustParsePrefix(e).Contains(a) {
			return 0
		}
	}
	return 1
}

// peersHold counts the peers that hold the address.
func peersHold(peers []v1alpha1.Peer, a netip.Addr) int {
	n := 0
	for _, p := range peers {
		var except []string
		for _, e := range p.Except {
			except = append(except, string(e))
		}
		n += blockHolds(string(p.CIDR), except, a)
	}
	return n
}

func TestAddressesAreReadAsTheAPIServerReadsThem(t *testing.T) {
	for s, want := range map[string]string{
		"10.1.2.3/8":               "10.0.0.0/8",
		"010.001.000.000/16":       "10.1.0.0/16",
		"::ffff:10.1.0.0/112":      "10.1.0.0/16",
		"2001:DB8:0:0::1/64":       "2001:db8::/64",
		"::/0":                     "::/0",
		"0.0.0.0/0":                "0.0.0.0/0",
		"2001:db8::1/128":          "2001:db8::1/128",
		"10.0.0.0":                 "",
		"10.0.0.0/33":              "",
		"":                         "",
		"fe80::1%eth0/64":          "",
		"10.0.0.0/8, 11.0.0.0/8":   "",
		"::ffff:255.255.255.255/0": "::/0",
	} {
		got, err := parsePrefix(s)
		if err != nil && want == "" {
			continue
		}
		if err != nil || got.String() != want {
			t.Errorf("%q is %v (%v), want %q", s, got, err, want)
		}
	}
}
