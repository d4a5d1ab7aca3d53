package reference

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	netutils "k8s.io/utils/net"
)

// inBlock reports whether an address is in a block and in none of its excepts. Like the API server, it admits blocks with host
// bits, with leading zeros, and IPv4 in IPv6's form. A block that cannot be read contains nothing.
func inBlock(block *networkingv1.IPBlock, addr netip.Addr) bool {
	if !inCIDR(block.CIDR, addr) {
		return false
	}
	for _, e := range block.Except {
		if inCIDR(e, addr) {
			return false
		}
	}
	return true
}

func inCIDR(cidr string, addr netip.Addr) bool {
	_, block, err := netutils.ParseCIDRSloppy(cidr)
	return err == nil && block.Contains(addr.AsSlice())
}

// selects reports whether a selector selects an object with these labels. A selector that cannot be read selects nothing.
func selects(selector *metav1.LabelSelector, set map[string]string) bool {
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(set))
}

// isInvalid reports whether a selector cannot be read.
func isInvalid(selector *metav1.LabelSelector) bool {
	_, err := metav1.LabelSelectorAsSelector(selector)
	return err != nil
}
