package names

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
)

func TestNamesByPolicyAndPod(t *testing.T) {
	now := time.Date(2026, 11, 30, 6, 0, 0, 0, time.UTC)
	rule := func(policy string, names ...string) agentapi.Rule {
		return agentapi.Rule{Policy: agentapi.RuleRef{PolicyRef: agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: policy}, RuleName: "vendor"}, Peers: []agentapi.Peer{{DomainNames: names}}}
	}
	pods := []agentapi.Pod{
		{Namespace: "shop", Name: "web-1", Egress: agentapi.PodPolicy{Rules: []agentapi.Rule{rule("shop-egress", "*.example.com", "never.example")}}},
		{Namespace: "shop", Name: "web-2", Egress: agentapi.PodPolicy{Rules: []agentapi.Rule{rule("shop-egress", "*.example.com", "never.example")}}},
		{Namespace: "tools", Name: "job", Egress: agentapi.PodPolicy{Rules: []agentapi.Rule{rule("tools-egress", "*.example.com")}}},
	}
	learned := &agentapi.NameList{
		Node: "one", Resolvers: []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")},
		Names: []agentapi.LearnedName{
			{Name: "api.example.com", Pattern: "*.example.com", Addresses: []agentapi.LearnedAddress{
				{Address: netip.MustParseAddr("203.0.113.9"), Until: now.Add(48 * time.Second)}, {Address: netip.MustParseAddr("2001:db8::9"), Until: now.Add(30 * time.Second)},
			}},
			{Name: "old.example.com", Pattern: "*.example.com", Addresses: []agentapi.LearnedAddress{{Address: netip.MustParseAddr("203.0.113.8"), Until: now.Add(-time.Second)}}},
		},
	}
	for _, tc := range []struct {
		filter filter
		want   []string // words of the lines
	}{
		{filter{}, []string{
			"one *.example.com api.example.com 203.0.113.9, 2001:db8::9 48s shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
			"one *.example.com old.example.com 203.0.113.8 expired shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
			"one never.example - - - shop-egress shop/web-1, shop/web-2",
		}},
		{filter{pod: "tools/"}, []string{
			"one *.example.com api.example.com 203.0.113.9, 2001:db8::9 48s shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
			"one *.example.com old.example.com 203.0.113.8 expired shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
		}},
		{filter{policy: "shop-egress", pod: "shop/web-2"}, []string{
			"one *.example.com api.example.com 203.0.113.9, 2001:db8::9 48s shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
			"one *.example.com old.example.com 203.0.113.8 expired shop-egress, tools-egress shop/web-1, shop/web-2, tools/job",
			"one never.example - - - shop-egress shop/web-1, shop/web-2",
		}},
		{filter{policy: "other"}, nil},
	} {
		l := &List{Resolvers: map[string][]netip.AddrPort{}}
		l.add(learned, pods, tc.filter)
		l.add(&agentapi.NameList{Node: "two"}, nil, tc.filter)
		l.sort()
		var out bytes.Buffer
		write(&out, command.Paint(false), l, now)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if last := lines[len(lines)-1]; last != "warning: node two trusts no resolver: nothing is learned there" {
			t.Errorf("%+v: last line %q", tc.filter, last)
		}
		var got []string
		for _, line := range lines[1 : len(lines)-1] {
			got = append(got, strings.Join(strings.Fields(line), " "))
		}
		if strings.Join(got, "\n") != strings.Join(tc.want, "\n") {
			t.Errorf("%+v:\n%s", tc.filter, strings.Join(got, "\n"))
		}
	}
}
