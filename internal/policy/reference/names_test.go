package reference

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/policy"
)

func TestNamesInEvaluation(t *testing.T) {
	api, other := netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8::9")
	names := Names{"api.example.com": {api}, "a.b.example.org": {other}}
	rule := func(a policy.Action, peer policy.Peer) policy.Rule {
		return policy.Rule{Action: a, Peers: policy.ListPeers(peer), Ports: []policy.PortRange{{Protocol: policy.TCP, First: 443, Last: 443}}}
	}
	byName := func(names ...string) policy.Rule { return rule(policy.Allow, policy.Peer{DomainNames: names}) }
	deny := rule(policy.Deny, policy.Peer{CIDR: netip.MustParsePrefix("203.0.113.0/24")})
	everything := policy.Rule{Action: policy.Deny, Everyone: true, EveryPort: true}
	for _, tc := range []struct {
		name  string
		rules []policy.Rule
		to    netip.Addr
		port  uint16
		names Names
		want  policy.Action
	}{
		{"a name allows its address", []policy.Rule{byName("api.example.com"), everything}, api, 443, names, policy.Allow},
		{"on the rule's ports only", []policy.Rule{byName("api.example.com"), everything}, api, 80, names, policy.Deny},
		{"before an answer nothing", []policy.Rule{byName("api.example.com"), everything}, api, 443, nil, policy.Deny},
		{"another name's address is not allowed", []policy.Rule{byName("api.example.com"), everything}, other, 443, names, policy.Deny},
		{"a wildcard covers any depth", []policy.Rule{byName("x.example", "*.example.org"), everything}, other, 443, names, policy.Allow},
		{"an earlier Deny wins", []policy.Rule{deny, byName("api.example.com"), everything}, api, 443, names, policy.Deny},
		{"a later Deny loses", []policy.Rule{byName("api.example.com"), deny, everything}, api, 443, names, policy.Allow},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &policy.Policy{Tier: policy.TierAdmin, Isolates: [2]bool{policy.Egress: true}, Rules: [2][]policy.Rule{policy.Egress: tc.rules}}
			f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: tc.to, Protocol: policy.TCP, Port: tc.port}
			if got := EvaluateWithNames(policy.Egress, []*policy.Policy{p}, f, noGroups{}, tc.names); got.Action != tc.want {
				t.Errorf("%v, want %v", got.Action, tc.want)
			}
		})
	}
}

func TestNamesInClusterPolicies(t *testing.T) {
	const subject = "tier: Admin\npriority: 1\nsubject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: frontend}}}}\n"
	c := clusterWith(t, subject+`egress:
- {action: Accept, to: [{domainNames: ["API.example.com.", "*.example.org", "10.0.0.2"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
- {action: Accept, to: [{domainNames: [backend.example]}], protocols: [{destinationNamedPort: http}]}
- {action: Deny, to: [{networks: [0.0.0.0/0]}]}`)
	c.Names = Names{"api.example.com": {netip.MustParseAddr(outside)}, "backend.example": {netip.MustParseAddr(backend)}}
	for _, f := range []struct {
		to   string
		port uint16
		want bool
	}{
		{outside, 443, true},
		{outside, 80, false},
		{backend, 443, false},  // an address is not a name
		{backend, 8080, false}, // a peer by names selects no pod that names ports
	} {
		flow := policy.Flow{Source: netip.MustParseAddr(frontend), Destination: netip.MustParseAddr(f.to), Protocol: policy.TCP, Port: f.port}
		if got := c.Allows(flow); got != f.want {
			t.Errorf("%s:%d: %v", f.to, f.port, got)
		}
	}
	c.Names["example.org"] = []netip.Addr{netip.MustParseAddr(nodeTwo)}
	flow := policy.Flow{Source: netip.MustParseAddr(frontend), Destination: netip.MustParseAddr(nodeTwo), Protocol: policy.TCP, Port: 443}
	if c.Allows(flow) {
		t.Error("*.example.org covers example.org")
	}
	c.Names["a.b.example.org"] = []netip.Addr{netip.MustParseAddr(nodeTwo)}
	if !c.Allows(flow) {
		t.Error("*.example.org does not cover a.b.example.org")
	}
}
