package module

import (
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	table := []Module{
		{Name: "sctp", Aliases: []string{"net-pf-2-proto-132", "net-pf-10-proto-132"}, Needs: []string{"libcrc32c", "udp_tunnel"}},
		{Name: "udp_tunnel", Needs: []string{"libcrc32c"}},
		{Name: "libcrc32c", Needs: []string{"crc32c"}}, // which is built in
		{Name: "nft_ct", Aliases: []string{"nft-expr-ct", "nft-obj-3"}},
		{Name: "br_netfilter", Aliases: []string{"of:N*T*Cbridge"}},
	}
	for want, names := range map[string]string{
		"sctp":               "libcrc32c udp_tunnel sctp",
		"net-pf-2-proto-132": "libcrc32c udp_tunnel sctp",
		"br-netfilter":       "br_netfilter",
		"of:NxTyCbridge":     "br_netfilter",
		"nft-obj-4":          "",
		"nft_ct":             "nft_ct",
	} {
		var got []string
		for _, m := range Find(table, want) {
			got = append(got, m.Name)
		}
		if strings.Join(got, " ") != names {
			t.Errorf("%s: %q, want %q", want, got, names)
		}
	}
}
