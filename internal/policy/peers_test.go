package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPeersAreAsTheyWereListed(t *testing.T) {
	var excepts []netip.Prefix
	for i := range 300 { // more than a byte counts
		excepts = append(excepts, netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", i>>8, i&255)))
	}
	all := []Peer{
		{CIDR: netip.MustParsePrefix("0.0.0.0/0")},
		{CIDR: netip.MustParsePrefix("10.1.2.3/32")},
		{CIDR: netip.MustParsePrefix("::/0")},
		{CIDR: netip.MustParsePrefix("2001:db8::1/128")},
		{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: excepts},
		{CIDR: netip.MustParsePrefix("2001:db8::/32"), Except: []netip.Prefix{netip.MustParsePrefix("2001:db8::/64")}},
		{Group: GroupKey{"shop", "g"}},
		{Group: GroupKey{Name: "no namespace"}},
		{DomainNames: []string{"a.example", "*.b.example"}},
	}
	for n := range len(all) + 1 {
		list := ListPeers(all[:n]...)
		if diff := cmp.Diff(all[:n], append([]Peer{}, slices.Collect(list.All())...), compareAddresses); diff != "" || list.Len() != n {
			t.Errorf("%d peers are %d (-want +got)\n%s", n, list.Len(), diff)
		}
		if list != ListPeers(all[:n]...) {
			t.Errorf("two lists of the same %d peers are different", n)
		}
	}
	for range ListPeers(all...).All() {
		break // the rest is not read
	}
}

// TestBlocksArePacked is about what large policies are made of.
func TestBlocksArePacked(t *testing.T) {
	four, six := Peer{CIDR: netip.MustParsePrefix("10.1.2.3/32")}, Peer{CIDR: netip.MustParsePrefix("2001:db8::1/128")}
	if got, want := len(ListPeers(four, four, six).Packed()), 1+5+5+17; got != want {
		t.Errorf("%d bytes, want %d", got, want)
	}
}
