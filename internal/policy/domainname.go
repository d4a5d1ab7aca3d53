package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/net/idna"
)

const (
	maxNameLength  = 253 // of a DNS name as text; RFC 1035, section 3.1 limits its 255 bytes on the wire
	maxLabelLength = 63
)

// internationalised turns a name of other scripts into the ASCII form that resolvers are asked for, as browsers do. It does not apply the
// rules of host names: underscores are valid in DNS.
var internationalised = idna.New(idna.MapForLookup(), idna.Transitional(false), idna.BidiRule(), idna.StrictDomainName(false))

// CanonicalDomainName returns the form of a DNS name, or of a wildcard such as *.example.com, that policies are compared by: in lower case,
// without a trailing dot, and in ASCII. The error says why no resolver can be asked for the name, or why a policy cannot have it.
func CanonicalDomainName(name string) (string, error) {
	base := strings.TrimSuffix(name, ".")
	base, isWildcard := strings.CutPrefix(base, "*.")
	base = strings.ToLower(base)
	if !isASCII(base) {
		ascii, err := internationalised.ToASCII(base)
		if err != nil {
			return "", fmt.Errorf("%q is not a valid internationalised name: %w", name, err)
		}
		base = ascii
	}
	if isAddress(base) {
		return "", fmt.Errorf("%q is an address, not a name: use a CIDR", name)
	}
	if err := checkLabels(name, base, isWildcard); err != nil {
		return "", err
	}
	if isWildcard {
		base = "*." + base
	}
	if len(base) > maxNameLength {
		return "", fmt.Errorf("%q has %d characters: a DNS name has at most %d", name, len(base), maxNameLength)
	}
	return base, nil
}

// checkLabels checks the name without the star; original is for the error.
func checkLabels(original, base string, isWildcard bool) error {
	labels := strings.Split(base, ".")
	if len(labels) < 2 && !isWildcard {
		return fmt.Errorf("%q is not a full name: write it with its domain, such as api.example.com", original)
	}
	for _, label := range labels {
		switch {
		case label == "":
			return fmt.Errorf("%q has an empty label", original)
		case len(label) > maxLabelLength:
			return fmt.Errorf("%q has a label of %d characters: DNS allows %d", original, len(label), maxLabelLength)
		case label[0] == '-' || label[len(label)-1] == '-':
			return fmt.Errorf("%q has a label that begins or ends with a hyphen", original)
		}
		if i := strings.IndexFunc(label, isInvalidInLabel); i >= 0 {
			if label[i] == '*' {
				return fmt.Errorf("%q: a star can only be the first label, such as *.example.com", original)
			}
			return fmt.Errorf("%q is not a DNS name: %q is not a letter, a digit, a hyphen or an underscore", original, label[i])
		}
	}
	return nil
}

func isInvalidInLabel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
}

func isASCII(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r > 127 })
}

// isAddress reports whether a name is an IP address, or consists of numbers only as abbreviated IPv4 addresses do.
func isAddress(name string) bool {
	if _, err := netip.ParseAddr(strings.Trim(name, "[]")); err == nil {
		return true
	}
	return name != "" && strings.Trim(name, "0123456789.") == ""
}

// CoversName reports whether a domain name of a policy, in canonical form, covers a name. "*.example.com" covers names of any depth below
// example.com, and not example.com.
func CoversName(pattern, name string) bool {
	if base, isWildcard := strings.CutPrefix(pattern, "*"); isWildcard {
		return strings.HasSuffix(name, base) && len(name) > len(base)
	}
	return pattern == name
}
