package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// resolvers is a flag: addresses of DNS servers with or without a port, separated by commas.
type resolvers []netip.AddrPort

const dnsPort = 53

func (r *resolvers) String() string {
	texts := make([]string, len(*r))
	for i, a := range *r {
		texts[i] = a.String()
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
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("%q is not an address such as 169.254.20.10, or an address and a port such as [fd00::10]:5353", text)
			}
			a = netip.AddrPortFrom(addr, dnsPort)
		}
		if addr := a.Addr().Unmap(); addr.Zone() != "" || addr.IsUnspecified() || addr.IsMulticast() || a.Port() == 0 {
			return fmt.Errorf("%q is not an address at which a resolver answers", text)
		}
		*r = append(*r, netip.AddrPortFrom(a.Addr().Unmap(), a.Port()))
	}
	return nil
}
