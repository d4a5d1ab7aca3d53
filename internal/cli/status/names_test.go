package status

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/agentapi"
)

func TestDomainNamesOfPolicies(t *testing.T) {
	cluster := agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "egress"}
	pods := []agentapi.Pod{{Egress: agentapi.PodPolicy{Rules: []agentapi.Rule{
		{Policy: agentapi.RuleRef{PolicyRef: cluster}, Peers: []agentapi.Peer{{DomainNames: []string{"a.example", "*.b.example"}}}},
	}}}}
	learned := []agentapi.LearnedName{
		{Name: "x.b.example", Pattern: "*.b.example", Addresses: []agentapi.LearnedAddress{{Address: netip.MustParseAddr("203.0.113.9")}}}, {Name: "a.example", Pattern: "a.example"},
	}
	dns := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:53")}
	s := &Status{Policies: []Policy{{Kind: "ClusterNetworkPolicy", Name: "egress"}, {Namespace: "shop", Name: "egress"}}}
	s.domainNames(map[string]*report{
		"n1": {pods: pods, names: &agentapi.NameList{Resolvers: dns, Names: learned}},
		"n2": {pods: pods, names: &agentapi.NameList{Resolvers: dns, BehindBridge: 7}},
		"n3": {pods: pods, names: &agentapi.NameList{}},
		"n4": {},
	})
	want := []string{"node n2: nothing was learned from 7 DNS answers, because they came through a bridge", "node n3: policies have domain names, and the agent trusts no DNS resolver"}
	if len(s.Attention) != 2 || !strings.HasPrefix(s.Attention[0], want[0]) || !strings.HasPrefix(s.Attention[1], want[1]) {
		t.Errorf("%q", s.Attention)
	}
	if got := resolvers(s.Resolvers); got != "10.96.0.10:53 (2 nodes)" {
		t.Error(got)
	}
	if len(s.Policies[1].Names) > 0 {
		t.Errorf("%+v", s.Policies[1])
	}
	var out strings.Builder
	writePolicy(&out, false, &s.Policies[0], nil)
	if want := "DOMAIN NAME   LEARNED ON\n*.b.example   1/3 nodes\na.example     0/3 nodes\n"; !strings.Contains(out.String(), want) {
		t.Errorf("%s\nwant %s", out.String(), want)
	}
}

func TestOnlyPodsWithNamesAreAskedAbout(t *testing.T) {
	if agentapi.HaveDomainNames([]agentapi.Pod{{Egress: agentapi.PodPolicy{Rules: []agentapi.Rule{{Peers: []agentapi.Peer{{CIDR: netip.MustParsePrefix("10.0.0.0/8")}}}}}}}) {
		t.Error("a pod without names")
	}
}
