package reference

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
)

// Nodes of the small cluster: the pods of shop run on one, prometheus runs on the other.
const (
	nodeOne = "192.0.2.1"
	nodeTwo = "192.0.2.2"
)

// clusterWith returns the small cluster with nodes and with cluster policies p0, p1 and so on.
func clusterWith(t *testing.T, policies ...string) *Cluster {
	t.Helper()
	node := func(name, ip string) corev1.Node {
		return corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"name": name}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeHostName, Address: name}, {Type: corev1.NodeInternalIP, Address: ip},
			}},
		}
	}
	c := &Cluster{NetworkPolicies: *cluster(t), Nodes: []corev1.Node{node("one", nodeOne), node("two", nodeTwo)}}
	for i := range c.Pods {
		c.Pods[i].Spec.NodeName = map[string]string{"shop": "one", "monitoring": "two"}[c.Pods[i].Namespace]
	}
	for i, y := range policies {
		p := cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("p%d", i)}}
		if err := yaml.UnmarshalStrict([]byte(y), &p.Spec); err != nil {
			t.Fatal(err)
		}
		c.ClusterPolicies = append(c.ClusterPolicies, p)
	}
	return c
}

// denyAll is a NetworkPolicy of shop that isolates its pods in both directions.
func denyAll() networkingv1.NetworkPolicy {
	return networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny-all"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}},
	}
}

func TestWhatClusterNetworkPoliciesMean(t *testing.T) {
	const (
		admin    = "tier: Admin\npriority: 1\n"
		baseline = "tier: Baseline\npriority: 1\n"
		all      = "subject: {namespaces: {}}\n"
		shop     = "subject: {namespaces: {matchLabels: {team: shop}}}\n"
		onlyBack = "subject: {pods: {namespaceSelector: {matchLabels: {team: shop}}, podSelector: {matchLabels: {app: backend}}}}\n"
	)
	type flow struct {
		from, to string
		proto    policy.Protocol
		port     uint16
		allowed  bool
	}
	for _, tc := range []struct {
		name     string
		isolated bool // by a NetworkPolicy that denies all in shop
		policies []string
		flows    []flow
	}{
		{"without policies all is allowed", false, nil, []flow{{frontend, backend, policy.TCP, 80, true}}},
		{"Deny of the Admin tier", false, []string{admin + shop + "ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: sre}}}]}]"}, []flow{
			{prometheus, backend, policy.TCP, 80, false}, {prometheus, backend, policy.ICMP, 0, false}, {frontend, backend, policy.TCP, 80, true}, {backend, prometheus, policy.TCP, 80, true}}},
		{"Accept of the Admin tier overrides NetworkPolicies", true, []string{
			admin + onlyBack + "ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]",
			admin + shop + "egress: [{action: Accept, to: [{namespaces: {}}]}]",
		}, []flow{{frontend, backend, policy.TCP, 80, true}, {frontend, backend, policy.TCP, 81, false}, {backend, frontend, policy.TCP, 80, false}}},
		{"the first rule that matches counts", false, []string{admin + shop + `
ingress:
- {action: Accept, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: frontend}}}}]}
- {action: Deny, from: [{namespaces: {}}]}`}, []flow{{frontend, backend, policy.TCP, 80, true}, {prometheus, backend, policy.TCP, 80, false}, {outside, backend, policy.TCP, 80, true}}},
		{"the lower priority counts first", false, []string{
			"tier: Admin\npriority: 7\n" + shop + "ingress: [{action: Accept, from: [{namespaces: {}}]}]",
			"tier: Admin\npriority: 6\n" + shop + "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{udp: {destinationPort: {range: {start: 1, end: 100}}}}]}]",
		}, []flow{{frontend, backend, policy.UDP, 100, false}, {frontend, backend, policy.UDP, 101, true}, {frontend, backend, policy.TCP, 100, true}}},
		{"at equal priorities the name decides", false, []string{
			admin + shop + "ingress: [{action: Deny, from: [{namespaces: {}}]}]", admin + shop + "ingress: [{action: Accept, from: [{namespaces: {}}]}]",
		}, []flow{{frontend, backend, policy.TCP, 80, false}}},
		{"Pass leaves the tier, and NetworkPolicies decide", true, []string{
			admin + shop + "ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Accept, from: [{namespaces: {}}]}]",
			"tier: Admin\npriority: 2\n" + shop + "ingress: [{action: Accept, from: [{namespaces: {}}]}]",
		}, []flow{{prometheus, backend, policy.TCP, 80, false}}},
		{"Pass leaves the tier, and Baseline decides", false, []string{
			admin + shop + "ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: sre}}}]}, {action: Deny, from: [{namespaces: {}}]}]",
			baseline + shop + "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]",
		}, []flow{{prometheus, backend, policy.TCP, 80, false}, {prometheus, backend, policy.TCP, 81, true}, {frontend, backend, policy.TCP, 81, false}}},
		{"Baseline does not apply to a pod that a NetworkPolicy isolates", true, []string{baseline + shop + "ingress: [{action: Accept, from: [{namespaces: {}}]}]"}, []flow{
			{prometheus, backend, policy.TCP, 80, false}}},
		{"networks contain pods", false, []string{admin + shop + "egress: [{action: Deny, to: [{networks: [10.0.1.0/24, '2001:db8::/32']}]}]"}, []flow{
			{frontend, prometheus, policy.TCP, 80, false}, {frontend, "10.0.1.77", policy.TCP, 80, false}, {frontend, backend, policy.TCP, 80, true}, {"fd00::1", "2001:db8::1", policy.TCP, 80, false}}},
		{"nodes are their addresses", false, []string{admin + shop + "egress: [{action: Deny, to: [{nodes: {matchLabels: {name: two}}}]}]"}, []flow{
			{frontend, nodeTwo, policy.TCP, 80, false}, {frontend, nodeOne, policy.TCP, 80, true}, {prometheus, nodeTwo, policy.TCP, 80, true}}},
		{"traffic to the own node is judged by cluster policies", false, []string{admin + shop + "egress: [{action: Deny, to: [{nodes: {}}]}]"}, []flow{
			{frontend, nodeOne, policy.TCP, 80, false}, {nodeOne, frontend, policy.TCP, 80, true}}},
		{"traffic to the own node is not judged by NetworkPolicies", true, nil, []flow{{frontend, nodeOne, policy.TCP, 80, true}, {frontend, nodeTwo, policy.TCP, 80, false}}},
		{"a named port is a port of the destination", false, []string{admin + shop + "egress: [{action: Deny, to: [{namespaces: {}}], protocols: [{destinationNamedPort: http}]}]"}, []flow{
			{frontend, backend, policy.TCP, 8080, false}, {frontend, backend, policy.TCP, 80, true}, {frontend, backend, policy.UDP, 8080, true}, {frontend, prometheus, policy.TCP, 8080, true}}},
		{"a named port beside networks is that of the pods in them", false, []string{admin + shop + "egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}], protocols: [{destinationNamedPort: http}]}]"}, []flow{
			{frontend, backend, policy.TCP, 8080, false}, {frontend, "10.0.0.77", policy.TCP, 8080, true}}},
		{"a peer that is not known: Accept matches nothing", false, []string{
			admin + shop + "ingress: [{action: Accept, from: [{}, {namespaces: {}}]}]", "tier: Admin\npriority: 2\n" + shop + "ingress: [{action: Deny, from: [{namespaces: {}}]}]",
		}, []flow{{frontend, backend, policy.TCP, 80, false}, {outside, backend, policy.TCP, 80, true}}},
		{"a peer that is not known: Deny and Pass deny all", false, []string{
			admin + onlyBack + "ingress: [{action: Pass, from: [{}]}]", admin + "subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: frontend}}}}\ningress: [{action: Deny, from: [{}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]",
		}, []flow{
			{outside, backend, policy.UDP, 9, false}, {outside, frontend, policy.UDP, 9, false}, {outside, prometheus, policy.UDP, 9, true},
			{nodeOne, backend, policy.TCP, 80, true}, {nodeTwo, backend, policy.TCP, 80, false}}},
		{"rules before one that is not known decide", false, []string{admin + shop + "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{}]}]"}, []flow{
			{frontend, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 80, false}}},
		{"a protocol that is not known is like a peer that is not known", false, []string{admin + shop + "ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: sre}}}], protocols: [{}]}]"}, []flow{
			{frontend, backend, policy.TCP, 80, false}}},
		{"names outside Accept rules deny all; in Accept rules those of which no address is known match nothing", false, []string{
			admin + onlyBack + "egress: [{action: Deny, to: [{domainNames: [example.com]}]}]",
			admin + "subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: frontend}}}}\negress: [{action: Accept, to: [{domainNames: [example.com]}, {networks: [192.0.2.0/24]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]",
		}, []flow{{backend, outside, policy.TCP, 443, false}, {frontend, outside, policy.TCP, 443, false}, {frontend, nodeTwo, policy.TCP, 443, true}}},
		{"a selector that cannot be read is like a peer that is not known", false, []string{
			admin + shop + "ingress: [{action: Deny, from: [{namespaces: {matchExpressions: [{key: team, operator: Near}]}}]}]",
		}, []flow{{outside, backend, policy.TCP, 80, false}}},
		{"a subject that cannot be read selects no pod", false, []string{
			admin + "subject: {namespaces: {matchExpressions: [{key: team, operator: Near}]}}\ningress: [{action: Deny, from: [{namespaces: {}}]}]",
			admin + "subject: {}\ningress: [{action: Deny, from: [{namespaces: {}}]}]",
		}, []flow{{frontend, backend, policy.TCP, 80, true}}},
		{"names in Accept rules of the Baseline tier: the rule matches nothing", false, []string{
			baseline + shop + "egress: [{action: Accept, to: [{domainNames: [example.com]}, {networks: [192.0.2.0/24]}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]",
		}, []flow{{frontend, nodeTwo, policy.TCP, 443, false}}},
		{"families are judged alike", false, []string{admin + all + "ingress: [{action: Deny, from: [{namespaces: {}}]}]"}, []flow{{"fd00::1", "fd00::2", policy.TCP, 80, false}, {"fd00::9", "fd00::2", policy.TCP, 80, true}}},
		{"no rules in a direction: not affected", false, []string{admin + shop + "ingress: []"}, []flow{{outside, backend, policy.TCP, 80, true}}},
		{"a pod reaches its own address", false, []string{admin + all + "ingress: [{action: Deny, from: [{namespaces: {}}]}]"}, []flow{{backend, backend, policy.TCP, 80, true}}},
		{"an empty subject is every pod of every namespace", false, []string{baseline + "subject: {pods: {namespaceSelector: {}, podSelector: {}}}\ningress: [{action: Deny, from: [{namespaces: {}}]}]"}, []flow{
			{backend, prometheus, policy.TCP, 80, false}, {prometheus, backend, policy.TCP, 80, false}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := clusterWith(t, tc.policies...)
			if tc.isolated {
				c.Policies = append(c.Policies, denyAll())
			}
			for _, f := range tc.flows {
				flow := policy.Flow{Source: netip.MustParseAddr(f.from), Destination: netip.MustParseAddr(f.to), Protocol: f.proto, Port: f.port}
				if got := c.Allows(flow); got != f.allowed {
					t.Errorf("%v: allowed %v, want %v", flow, got, f.allowed)
				}
			}
		})
	}
}

func TestAHostNetworkPodIsNeitherSubjectNorPeer(t *testing.T) {
	c := clusterWith(t, "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\negress: [{action: Deny, to: [{namespaces: {}}]}]")
	c.Pods[0].Spec.HostNetwork = true
	f := policy.Flow{Source: netip.MustParseAddr(frontend), Destination: netip.MustParseAddr(backend), Protocol: policy.TCP, Port: 80}
	if !c.Allows(f) {
		t.Error("it is a subject")
	}
	if f.Source, f.Destination = f.Destination, f.Source; !c.Allows(f) {
		t.Error("it is a peer")
	}
}

func TestAClusterDecisionNamesTheChain(t *testing.T) {
	c := clusterWith(t,
		"tier: Admin\npriority: 1\nsubject: {namespaces: {}}\ningress: [{action: Deny, from: [{namespaces: {matchLabels: {team: none}}}]}, {action: Pass, from: [{namespaces: {}}]}]",
		"tier: Baseline\npriority: 1\nsubject: {namespaces: {}}\ningress: [{action: Deny, from: [{namespaces: {}}]}]")
	f := policy.Flow{Source: netip.MustParseAddr(prometheus), Destination: netip.MustParseAddr(backend), Protocol: policy.TCP, Port: 80}
	d := c.Evaluate(policy.Ingress, f)
	if d.Allowed() || d.Tier != policy.TierBaseline || d.Admin == nil || d.Admin.Policy.Name != "p0" || d.Admin.Index != 1 || d.Admin.Action != policy.Pass ||
		d.NetworkPolicy == nil || len(d.NetworkPolicy.Isolating) != 0 || d.Baseline == nil || d.Baseline.Policy.Name != "p1" {
		t.Errorf("%+v", d)
	}
	c.Policies = append(c.Policies, denyAll())
	if d = c.Evaluate(policy.Ingress, f); d.Allowed() || d.Tier != policy.TierNetworkPolicy || d.Baseline != nil || len(d.NetworkPolicy.Isolating) != 1 {
		t.Errorf("%+v", d)
	}
}
