package diff

import (
	"math/big"
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

func TestCount(t *testing.T) {
	shift := func(n uint) *big.Int { return new(big.Int).Lsh(big.NewInt(1), n) }
	for want, n := range map[string]*big.Int{
		"1": big.NewInt(1), "256": big.NewInt(256), "1,000": big.NewInt(1000), "16,711,680": big.NewInt(16711680), "4,294,967,296": shift(32),
		"2^80": shift(80), "more than 2^80": new(big.Int).Add(shift(80), big.NewInt(1)),
	} {
		if got := count(n); got != want {
			t.Errorf("%s: %q, want %q", n, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	parts := func(blocks ...string) (out []model.Part) {
		for _, b := range blocks {
			p := netip.MustParsePrefix(b)
			out = append(out, model.Parts([]netip.Prefix{p}, nil)...)
		}
		return out
	}
	for want, p := range map[string][]model.Part{
		"": nil, "1": parts("10.0.0.1/32"), "2": parts("10.0.0.1/32", "10.0.1.1/32"), "2^80": parts("2001:db8::/48"),
		"256 IPv4, 2^64 IPv6": parts("10.0.0.0/24", "2001:db8::/64"),
	} {
		if got := size(p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
