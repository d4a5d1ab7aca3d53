package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// prefixes is a flag: addresses and CIDRs, separated by commas.
type prefixes []netip.Prefix

func (p *prefixes) String() string {
	texts := make([]string, len(*p))
	for i, prefix := range *p {
		texts[i] = prefix.String()
	}
	return strings.Join(texts, ",")
}

// Set reads the flag's value.
func (p *prefixes) Set(value string) error {
	*p = nil
	for text := range strings.SplitSeq(value, ",") {
		if text == "" {
			continue
		}
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			*p = append(*p, netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()))
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Addr().Is4In6() {
			return fmt.Errorf("%q is not an address or a CIDR", text)
		}
		*p = append(*p, prefix.Masked())
	}
	return nil
}
