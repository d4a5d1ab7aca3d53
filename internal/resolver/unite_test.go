package resolver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
)

// readBlocks reads blocks such as "10.0.0.0/8-10.1.0.0/16-10.2.0.0/16 10.3.0.0/16".
func readBlocks(t testing.TB, text string) (out []block) {
	t.Helper()
	for _, s := range strings.Fields(text) {
		parts := strings.Split(s, "-")
		b, err := parseBlock(&networkingv1.IPBlock{CIDR: parts[0], Except: parts[1:]})
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

func TestUniteBlocks(t *testing.T) {
	for _, c := range []struct{ name, blocks, want string }{
		{"one", "10.0.0.0/8-10.1.0.0/16", "10.0.0.0/8-10.1.0.0/16"},
		{"the same CIDR without common excepts", "0.0.0.0/0-10.0.0.1/32 0.0.0.0/0-10.0.0.2/32", "0.0.0.0/0"},
		{"the same CIDR with common excepts", "10.0.0.0/8-10.1.0.0/16-10.3.0.0/16 10.0.0.0/8-10.1.2.0/24-10.1.4.0/24-10.2.0.0/16",
			"10.0.0.0/8-10.1.2.0/24-10.1.4.0/24"},
		{"one inside another", "10.1.0.0/16 10.0.0.0/8 10.2.3.0/24", "10.0.0.0/8"},
		{"one inside the excepts of another", "10.0.0.0/8-10.1.0.0/16 10.1.2.0/24", "10.0.0.0/8-10.1.0.0/16 10.1.2.0/24"},
		{"one that contains an except", "10.0.0.0/8-10.1.2.0/24 10.1.0.0/16", "10.0.0.0/8-10.1.2.0/24 10.1.0.0/16"},
		{"one inside one that is inside an except", "10.0.0.0/8-10.1.0.0/16 10.1.2.0/24 10.1.2.3/32", "10.0.0.0/8-10.1.0.0/16 10.1.2.0/24"},
		{"nothing is left", "10.0.0.0/8-10.0.0.0/8 10.0.0.0/9-10.0.0.0/9", ""},
		{"two families", "::/0-fd00::/8 0.0.0.0/0 ::/0-fe80::/10", "0.0.0.0/0 ::/0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, b := range unite(readBlocks(t, c.blocks)) {
				got = append(got, strings.ReplaceAll(b.key(), " ", "-"))
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got  %s\nwant %s", text, c.want)
			}
		})
	}
}

// Random blocks have the same addresses before and after, in a space of 256 addresses.
func TestUnitedBlocksHaveTheSameAddresses(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	prefix := func(inside netip.Prefix) netip.Prefix {
		bits := inside.Bits() + r.IntN(33-inside.Bits())
		addr := inside.Addr().As4()
		addr[3] |= byte(r.IntN(256)) & byte(0xff>>(inside.Bits()-24))
		return netip.PrefixFrom(netip.AddrFrom4(addr), bits).Masked()
	}
	has := func(blocks []block, a netip.Addr) bool {
		return slices.ContainsFunc(blocks, func(b block) bool { return b.contains(a) })
	}
	for range 3000 {
		var blocks []block
		for range 1 + r.IntN(6) {
			b := networkingv1.IPBlock{CIDR: prefix(netip.MustParsePrefix("10.0.0.0/24")).String()}
			for range r.IntN(4) {
				b.Except = append(b.Except, prefix(netip.MustParsePrefix(b.CIDR)).String())
			}
			parsed, err := parseBlock(&b)
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, parsed)
		}
		text := fmt.Sprint(blocks)
		united := unite(slices.Clone(blocks))
		for i := range 256 {
			a := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			if has(blocks, a) != has(united, a) {
				t.Fatalf("%s: %t of %s, and %t of %v", a, has(blocks, a), text, has(united, a), united)
			}
		}
	}
}
