package model

import (
	"strings"
	"testing"
)

// clusterPolicyText is a ClusterNetworkPolicy of which a case replaces a line.
const clusterPolicyText = `# line 1
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: tenants}
spec:
  tier: Admin
  priority: 7
  subject: {namespaces: {}}
  ingress:
  - action: Accept
    from: [{namespaces: {matchLabels: {team: ops}}}]
  egress:
  - action: Deny
    to: [{networks: [192.0.2.0/24]}]
    protocols: [{tcp: {destinationPort: {number: 22}}}]
`

// A field that v1alpha2 does not have is an error that names its line and how v1alpha2 spells it, and is never evaluated without it.
func TestClusterPoliciesAreReadStrictly(t *testing.T) {
	for _, version := range []string{"v1alpha2", "v1beta1"} {
		text := strings.Replace(clusterPolicyText, "v1alpha2", version, 1)
		if c := mustRead(t, text); len(c.ClusterPolicies) != 1 || len(c.Notes) != 0 || c.ClusterPolicies[0].Spec.Priority != 7 {
			t.Fatalf("%s: %+v", version, c)
		}
	}
	const (
		from      = "    from: [{namespaces: {matchLabels: {team: ops}}}]\n"
		to        = "    to: [{networks: [192.0.2.0/24]}]\n"
		protocols = "    protocols: [{tcp: {destinationPort: {number: 22}}}]\n"
		subject   = "  subject: {namespaces: {}}\n"
	)
	for _, tc := range []struct {
		name, old, new string
		want           []string
	}{
		{"Allow", "- action: Accept", "- action: Allow", []string{"line 10: spec.ingress[0].action", "write Accept"}},
		{"ports", protocols, "    ports: [{portNumber: {protocol: TCP, port: 22}}]\n", []string{"line 15: spec.egress[0].ports: unknown field", "protocols[].tcp.destinationPort.number"}},
		{"the port beside tcp", protocols, "    protocols:\n    - tcp:\n      destinationPort: {number: 22}\n", []string{"line 17: spec.egress[0].protocols[0].destinationPort", "belongs under tcp", "indentation"}},
		{"a number for a port", "{number: 22}", "22", []string{"spec.egress[0].protocols[0].tcp.destinationPort", "write {number: 22}"}},
		{"a range of one", "{number: 22}", "{range: {start: 22, end: 22}}", []string{"range: start must be less than end", "{number: 22}"}},
		{"a range backwards", "{number: 22}", "{range: {start: 30, end: 22}}", []string{"write {start: 22, end: 30}"}},
		{"a block as an object", "[192.0.2.0/24]", "[{cidr: 192.0.2.0/24}]", []string{"spec.egress[0].to[0].networks[0]", "plain strings"}},
		{"a block that is an address", "[192.0.2.0/24]", "[192.0.2.1]", []string{"write 192.0.2.1/32"}},
		{"namespaceSelector under namespaces", "{matchLabels: {team: ops}}", "{namespaceSelector: {matchLabels: {team: ops}}}", []string{"line 11: spec.ingress[0].from[0].namespaces.namespaceSelector", "directly under namespaces"}},
		{"sameLabels", "{matchLabels: {team: ops}}", "{sameLabels: [team]}", []string{"namespaces.sameLabels", "NPEP-122"}},
		{"notSameLabels", "{matchLabels: {team: ops}}", "{notSameLabels: [team]}", []string{"namespaces.notSameLabels", "NPEP-122"}},
		{"networks in ingress", from, "    from: [{networks: [192.0.2.0/24]}]\n", []string{"spec.ingress[0].from[0].networks: unknown field", "NPEP-127"}},
		{"a peer of comments", from, "    from:\n    - namespaces:\n        # later\n", []string{"spec.ingress[0].from[0].namespaces", "the peer is empty"}},
		{"an empty peer", from, "    from: [{}]\n", []string{"spec.ingress[0].from[0]: has no field; the peer is empty"}},
		{"a null peer", from, "    from: [null]\n", []string{"spec.ingress[0].from[0]: is null"}},
		{"no peer", from, "    from: []\n", []string{"spec.ingress[0].from: is empty", "[{namespaces: {}}]"}},
		{"two peers in one", from, "    from: [{namespaces: {}, pods: {podSelector: {}}}]\n", []string{"spec.ingress[0].from[0]: has 2 fields", "\"or\""}},
		{"pods without a selector", subject, "  subject: {pods: {}}\n", []string{"spec.subject.pods.podSelector: is required", "podSelector: {}"}},
		{"no subject", subject, "", []string{"line 5: spec.subject: is required"}},
		{"no priority", "  priority: 7\n", "", []string{"spec.priority: is required", "0 to 1000"}},
		{"a priority that is too high", "priority: 7", "priority: 1001", []string{"line 7: spec.priority: 1001"}},
		{"a priority in quotes", "priority: 7", "priority: \"7\"", []string{"spec.priority: must be of type integer, not string"}},
		{"to in ingress", from, "    to: [{namespaces: {}}]\n", []string{"spec.ingress[0].to: unknown field", "spec.ingress[0].from: is required"}},
		{"all of tcp", "{destinationPort: {number: 22}}", "{}", []string{"spec.egress[0].protocols[0].tcp: has no field", "{start: 1, end: 65535}"}},
		{"a null list of protocols", protocols, "    protocols:\n", []string{"spec.egress[0].protocols: is null"}},
		{"a tier in small letters", "tier: Admin", "tier: admin", []string{"line 6: spec.tier", "write Admin"}},
		{"a field twice", "  priority: 7\n", "  priority: 7\n  priority: 8\n", []string{"duplicate field \"priority\""}},
		{"a label that is no string", "{team: ops}", "{team: 1}", []string{"matchLabels.team: must be of type string"}},
		{"a selector that is none", "{matchLabels: {team: ops}}", "{matchExpressions: [{key: team, operator: In}]}", []string{"spec.ingress[0].from[0].namespaces.matchExpressions[0].values"}},
		{"a version before", "v1alpha2", "v1alpha1", []string{"no kind \"ClusterNetworkPolicy\" in version \"policy.networking.k8s.io/v1alpha1\"", "v1alpha2"}},
		{"Allow in v1beta1", "v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: tenants}\nspec:\n  tier: Admin\n  priority: 7\n  subject: {namespaces: {}}\n  ingress:\n  - action: Accept",
			"v1beta1\nkind: ClusterNetworkPolicy\nmetadata: {name: tenants}\nspec:\n  tier: Admin\n  priority: 7\n  subject: {namespaces: {}}\n  ingress:\n  - action: Allow", []string{"line 10: spec.ingress[0].action", "write Accept"}},
		{"a kind that never was", "v1alpha2\nkind: ClusterNetworkPolicy", "v1beta1\nkind: AdminNetworkPolicy", []string{"not read", "ClusterNetworkPolicy", "v1alpha2", "migrate anp convert"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			text := strings.Replace(clusterPolicyText, tc.old, tc.new, 1)
			if text == clusterPolicyText {
				t.Fatal("the case replaces nothing")
			}
			m := &Manifests{}
			err := m.Read("file.yaml", strings.NewReader(text))
			if err == nil {
				t.Fatal("read")
			}
			for _, want := range append(tc.want, "file.yaml: document 1: ") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in %q", want, err)
				}
			}
			if len(m.cluster.ClusterPolicies) > 0 {
				t.Errorf("evaluated as %+v", m.cluster.ClusterPolicies[0].Spec)
			}
		})
	}
}

// What the API server stores is read: an empty list of rules, ingress and egress that are null, and names in rules of every action.
func TestClusterPoliciesThatTheAPIServerStores(t *testing.T) {
	for _, tc := range []struct{ name, old, new string }{
		{"no rules", "  ingress:\n  - action: Accept\n    from: [{namespaces: {matchLabels: {team: ops}}}]\n", "  ingress: []\n"},
		{"null rules", "  ingress:\n  - action: Accept\n    from: [{namespaces: {matchLabels: {team: ops}}}]\n", "  ingress:\n"},
		{"a named port beside networks", "{tcp: {destinationPort: {number: 22}}}", "{destinationNamedPort: ssh}"},
		{"names in a Deny rule", "{networks: [192.0.2.0/24]}", "{domainNames: [\"*.example.com\"]}"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if c := mustRead(t, strings.Replace(clusterPolicyText, tc.old, tc.new, 1)); len(c.ClusterPolicies) != 1 {
				t.Errorf("%+v", c)
			}
		})
	}
}

// Another group's kind of the same name is never read as this one, whatever fields it has.
func TestClusterPoliciesOfOtherGroupsAreNotEvaluated(t *testing.T) {
	c := mustRead(t, clusterPolicyText+"---\n"+strings.Replace(clusterPolicyText, "policy.networking.k8s.io/v1alpha2", "networking.k8s.aws/v1alpha1", 1))
	if len(c.ClusterPolicies) != 1 || len(c.Notes) != 1 || c.Notes[0] != "not evaluated: ClusterNetworkPolicy.networking.k8s.aws tenants" {
		t.Errorf("%d policies, %q", len(c.ClusterPolicies), c.Notes)
	}
}
