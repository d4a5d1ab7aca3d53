package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// resolvers is a flag: addresses of DNS servers, separated by commas.
type resolvers []netip.AddrPort

// dnsPort is the only port on which nodes read answers.
const dnsPort = 53

func (r *resolvers) String() string {
	texts := make([]string, len(*r))
	for i, a := range *r {
		texts[i] = a.Addr().String()
	}
	return strings.Join(texts, ",")
}

// Set reads the flag's value.
func (r *resolvers) Set(value string) error {
	*r = nil
	for text := range strings.SplitSeq(value, ",") {
		if text == "" {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			return fmt.Errorf("%q is not an address such as 169.254.20.10 or fd00::10 (the port is always %d)", text, dnsPort)
		}
		if addr = addr.Unmap(); addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() {
			return fmt.Errorf("%q is not an address at which a resolver answers", text)
		}
		*r = append(*r, netip.AddrPortFrom(addr, dnsPort))
	}
	return nil
}
