package controller

import (
	"net/netip"
	"strings"
)

// maxAnnounced is the number of addresses that a pod may announce.
const maxAnnounced = 8

// announcedAddresses reads the addresses of an announcement; false if a pod cannot have them.
func announcedAddresses(raw [][]byte) (out []netip.Addr, ok bool) {
	if len(raw) == 0 || len(raw) > maxAnnounced {
		return nil, false
	}
	for _, bytes := range raw {
		addr, ok := netip.AddrFromSlice(bytes)
		addr = addr.Unmap()
		if !ok || !addr.IsGlobalUnicast() {
			return nil, false
		}
		out = append(out, addr)
	}
	return out, true
}

// camelCase turns POD_UNKNOWN into PodUnknown.
func camelCase(name string) string {
	var out strings.Builder
	for _, word := range strings.Split(strings.ToLower(name), "_") {
		if word != "" {
			out.WriteString(strings.ToUpper(word[:1]) + word[1:])
		}
	}
	return out.String()
}
