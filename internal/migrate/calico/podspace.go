package calico

import (
	"net/netip"

	"go4.org/netipx"
)

// notPods are addresses that no pod ever has: of this host, of the link, of many.
var notPods = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"), netip.MustParsePrefix("224.0.0.0/3"),
	netip.MustParsePrefix("::/127"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("ff00::/8"),
}

// PodSpace is where pods' addresses are: in these networks or, without any, anywhere that a pod's address can be.
func PodSpace(cidrs []netip.Prefix) *netipx.IPSet {
	var b netipx.IPSetBuilder
	for _, p := range cidrs {
		b.AddPrefix(p)
	}
	if len(cidrs) == 0 {
		b.Complement()
	}
	for _, p := range notPods {
		b.RemovePrefix(p)
	}
	s, err := b.IPSet()
	if err != nil {
		panic(err) // of prefixes that are none, and these are
	}
	return s
}
