package reference

import (
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/policy"
)

// Names are the addresses that are known of DNS names at one time, by the name in canonical form. Trusted resolvers have answered questions of
// the node's pods for these names, and the answers have not expired.
type Names map[string][]netip.Addr

// Has reports whether an address is known of a name that a policy's name or wildcard covers.
func (n Names) Has(pattern string, addr netip.Addr) bool {
	for name, addresses := range n {
		if policy.CoversName(pattern, name) && slices.Contains(addresses, addr) {
			return true
		}
	}
	return false
}

func (n Names) hasAny(patterns []string, addr netip.Addr) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return n.Has(p, addr) })
}

// hasSome is hasAny for patterns as policies have them. One that DNS cannot mean matches nothing.
func (n Names) hasSome(texts []string, addr netip.Addr) bool {
	return slices.ContainsFunc(texts, func(text string) bool {
		pattern, err := policy.CanonicalDomainName(text)
		return err == nil && n.Has(pattern, addr)
	})
}
