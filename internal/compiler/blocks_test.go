package compiler

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

func block(cidr string, excepts ...string) policy.Peer {
	return policy.Peer{CIDR: netip.MustParsePrefix(cidr), Except: prefixes(excepts...)}
}

func TestUnite(t *testing.T) {
	for _, tc := range []struct {
		name         string
		blocks, want []policy.Peer
	}{
		{"no blocks", nil, nil},
		{"one block keeps its excepts", []policy.Peer{block("10.0.0.0/8", "10.1.0.0/16")}, []policy.Peer{block("10.0.0.0/8", "10.1.0.0/16")}},
		{"host bits do not count", []policy.Peer{block("10.0.0.1/8", "10.1.2.3/16")}, []policy.Peer{block("10.0.0.0/8", "10.1.0.0/16")}},
		{"disjoint blocks keep their form", []policy.Peer{block("10.0.0.0/8"), block("192.168.0.0/16")}, []policy.Peer{block("10.0.0.0/8"), block("192.168.0.0/16")}},
		{"a block covers what another leaves out", []policy.Peer{block("0.0.0.0/0", "10.0.0.1/32"), block("0.0.0.0/0", "10.0.0.2/32")}, []policy.Peer{block("0.0.0.0/0")}},
		{"what all leave out stays out", []policy.Peer{block("0.0.0.0/0", "10.0.0.0/8"), block("0.0.0.0/0", "10.1.0.0/16")}, []policy.Peer{block("0.0.0.0/0", "10.1.0.0/16")}},
		{"an island in a hole is a block of its own", []policy.Peer{block("0.0.0.0/0", "10.0.0.0/8"), block("10.1.0.0/16", "10.1.1.0/24")},
			[]policy.Peer{block("0.0.0.0/0", "10.0.0.0/8"), block("10.1.0.0/16", "10.1.1.0/24")}},
		{"a block inside another is nothing new", []policy.Peer{block("10.0.0.0/8"), block("10.1.0.0/16", "10.1.1.0/24")}, []policy.Peer{block("10.0.0.0/8")}},
		{"excepts inside excepts", []policy.Peer{block("10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.0.0/16")}, []policy.Peer{block("10.0.0.0/8", "10.1.0.0/16")}},
		{"an except outside of its block", []policy.Peer{block("10.0.0.0/8", "11.0.0.0/8"), block("11.0.0.0/8")}, []policy.Peer{block("10.0.0.0/8"), block("11.0.0.0/8")}},
		{"an except of all of its block", []policy.Peer{block("10.0.0.0/8", "10.0.0.0/8"), block("11.0.0.0/8", "0.0.0.0/0")}, nil},
		{"families are apart", []policy.Peer{block("0.0.0.0/0"), block("::/0", "fd00::/8"), block("::/0", "fe80::/10")}, []policy.Peer{block("0.0.0.0/0"), block("::/0")}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := unite(tc.blocks); fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("%v, want %v", got, tc.want)
			}
		})
	}
}

// United blocks are disjoint, and cover the addresses that the blocks cover.
func TestUniteCoversTheSameAddresses(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	draw := func(within netip.Prefix) netip.Prefix {
		a := within.Addr().As4()
		bits := within.Bits() + rng.IntN(33-within.Bits())
		a[3] |= byte(rng.IntN(256)) &^ byte(0xff<<(8-max(0, within.Bits()-24)))
		return must(netip.AddrFrom4(a).Prefix(bits))
	}
	for range 2000 {
		var blocks []policy.Peer
		for range 1 + rng.IntN(5) {
			b := policy.Peer{CIDR: draw(netip.MustParsePrefix("10.0.0.0/24"))}
			for range rng.IntN(4) {
				b.Except = append(b.Except, draw(b.CIDR))
			}
			blocks = append(blocks, b)
		}
		united := unite(slices.Clone(blocks))
		for i := range 256 {
			addr := netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})
			in := 0
			for k := range united {
				if reference.Contains(&united[k], addr, nil) {
					in++
				}
			}
			want := 0
			if slices.ContainsFunc(blocks, func(b policy.Peer) bool { return reference.Contains(&b, addr, nil) }) {
				want = 1
			}
			if in != want {
				t.Fatalf("%v is in %d of %v, want %d; from %v", addr, in, united, want, blocks)
			}
		}
	}
}
