package reference

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
)

// A small cluster: shop with frontend and backend, monitoring with prometheus. 10.0.0.9 is no pod.
const (
	frontend   = "10.0.0.1"
	backend    = "10.0.0.2"
	prometheus = "10.0.1.1"
	outside    = "10.0.0.9"
)

func cluster(t *testing.T, policies ...string) *NetworkPolicies {
	t.Helper()
	pod := func(namespace, name, ip string, ports ...corev1.ContainerPort) corev1.Pod {
		return corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Ports: ports}}},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}, {IP: "fd00::" + ip[len(ip)-1:]}}},
		}
	}
	c := &NetworkPolicies{
		Namespaces: []corev1.Namespace{
			{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "shop"}}},
			{ObjectMeta: metav1.ObjectMeta{Name: "monitoring", Labels: map[string]string{"team": "sre"}}},
		},
		Pods: []corev1.Pod{
			pod("shop", "frontend", frontend),
			pod("shop", "backend", backend, corev1.ContainerPort{Name: "http", ContainerPort: 8080}),
			pod("monitoring", "prometheus", prometheus),
		},
	}
	for _, y := range policies {
		var np networkingv1.NetworkPolicy
		if err := yaml.UnmarshalStrict([]byte(y), &np.Spec); err != nil {
			t.Fatal(err)
		}
		np.Namespace, np.Name = "shop", "p"
		c.Policies = append(c.Policies, np)
	}
	return c
}

func TestWhatNetworkPoliciesMean(t *testing.T) {
	const selectBackend = "podSelector: {matchLabels: {app: backend}}\n"
	type flow struct {
		from, to string
		proto    policy.Protocol
		port     uint16
		allowed  bool
	}
	for _, tc := range []struct {
		name, policy string
		flows        []flow
	}{
		{"without a policy no pod is isolated", "", []flow{{frontend, backend, policy.TCP, 80, true}, {outside, backend, policy.ICMP, 0, true}}},
		{"an empty podSelector selects every pod of the namespace, and no other", "podSelector: {}", []flow{
			{frontend, backend, policy.TCP, 80, false}, {backend, frontend, policy.TCP, 80, false}, {backend, prometheus, policy.TCP, 80, true}}},
		{"without policyTypes and egress rules only ingress is isolated", selectBackend, []flow{
			{frontend, backend, policy.TCP, 80, false}, {backend, outside, policy.TCP, 80, true}}},
		{"without policyTypes and with egress rules both are isolated", selectBackend + "egress: [{to: [{ipBlock: {cidr: 10.0.0.9/32}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, false}, {backend, outside, policy.TCP, 80, true}, {backend, frontend, policy.TCP, 80, false}}},
		{"a missing from is everyone", selectBackend + "ingress: [{ports: [{port: 80}]}]", []flow{
			{outside, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 81, false}, {outside, backend, policy.UDP, 80, false}}},
		{"an empty from is everyone", selectBackend + "ingress: [{from: []}]", []flow{{outside, backend, policy.TCP, 80, true}, {outside, backend, policy.ICMP, 0, true}}},
		{"an empty rule list refuses all", selectBackend + "ingress: []", []flow{{frontend, backend, policy.TCP, 80, false}}},
		{"podSelector alone means the policy's namespace", selectBackend + "ingress: [{from: [{podSelector: {}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, true}, {prometheus, backend, policy.TCP, 80, false}, {outside, backend, policy.TCP, 80, false}}},
		{"an empty namespaceSelector means pods of all namespaces", selectBackend + "ingress: [{from: [{namespaceSelector: {}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, true}, {prometheus, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 80, false}}},
		{"both selectors in one peer are AND", selectBackend + "ingress: [{from: [{namespaceSelector: {matchLabels: {team: sre}}, podSelector: {matchLabels: {app: frontend}}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, false}, {prometheus, backend, policy.TCP, 80, false}}},
		{"two peers are OR", selectBackend + "ingress: [{from: [{namespaceSelector: {matchLabels: {team: sre}}}, {podSelector: {matchLabels: {app: frontend}}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, true}, {prometheus, backend, policy.TCP, 80, true}}},
		{"NotIn and DoesNotExist hold where the key is absent", selectBackend + "ingress: [{from: [{podSelector: {matchExpressions: [{key: none, operator: NotIn, values: [x]}, {key: nil, operator: DoesNotExist}]}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, true}}},
		{"In and Exists do not", selectBackend + "ingress: [{from: [{podSelector: {matchExpressions: [{key: none, operator: Exists}]}}]}]", []flow{
			{frontend, backend, policy.TCP, 80, false}}},
		{"an except of one rule takes nothing from another", selectBackend + "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24, except: [10.0.0.8/29]}}]}, {from: [{ipBlock: {cidr: 10.0.0.9/32}}], ports: [{port: 80}]}]", []flow{
			{outside, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 81, false}, {frontend, backend, policy.TCP, 81, true}}},
		{"two rules for one CIDR add up", selectBackend + "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 80}]}, {from: [{ipBlock: {cidr: 10.0.0.0/24}}], ports: [{port: 443}]}]", []flow{
			{outside, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 443, true}, {outside, backend, policy.TCP, 81, false}}},
		{"a block may have host bits, leading zeros or IPv6's form", selectBackend + "ingress: [{from: [{ipBlock: {cidr: 10.0.0.77/30}}]}, {from: [{ipBlock: {cidr: 010.000.000.001/32}}]}, {from: [{ipBlock: {cidr: '::ffff:10.0.0.8/125', except: ['::ffff:10.0.0.10/128']}}]}]", []flow{
			{"10.0.0.78", backend, policy.TCP, 80, true}, {frontend, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 80, true}, {"10.0.0.10", backend, policy.TCP, 80, false}, {"10.0.0.16", backend, policy.TCP, 80, false}}},
		{"endPort is inclusive", selectBackend + "ingress: [{ports: [{port: 80, endPort: 82}]}]", []flow{
			{outside, backend, policy.TCP, 79, false}, {outside, backend, policy.TCP, 80, true}, {outside, backend, policy.TCP, 82, true}, {outside, backend, policy.TCP, 83, false}}},
		{"a protocol without a port is all its ports", selectBackend + "ingress: [{ports: [{protocol: UDP}]}]", []flow{
			{outside, backend, policy.UDP, 9, true}, {outside, backend, policy.TCP, 9, false}, {outside, backend, policy.SCTP, 9, false}, {outside, backend, policy.ICMP, 0, false}}},
		{"a named port of ingress is the selected pod's", "podSelector: {}\ningress: [{ports: [{port: http}]}]", []flow{
			{outside, backend, policy.TCP, 8080, true}, {outside, backend, policy.TCP, 80, false}, {outside, frontend, policy.TCP, 8080, false}}},
		{"a named port of egress is the peer's", "podSelector: {}\npolicyTypes: [Egress]\negress: [{ports: [{port: http}]}]", []flow{
			{frontend, backend, policy.TCP, 8080, true}, {frontend, backend, policy.TCP, 80, false}, {frontend, outside, policy.TCP, 8080, false}}},
		{"families are judged alike", selectBackend + "ingress: [{from: [{podSelector: {matchLabels: {app: frontend}}}]}]", []flow{
			{"fd00::1", "fd00::2", policy.TCP, 80, true}, {"fd00::9", "fd00::2", policy.TCP, 80, false}}},
		{"a pod cannot block itself", "podSelector: {}\npolicyTypes: [Ingress, Egress]", []flow{{backend, backend, policy.TCP, 80, true}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := cluster(t)
			if tc.policy != "" {
				c = cluster(t, tc.policy)
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

func TestADecisionNamesThePolicyAndTheRule(t *testing.T) {
	c := cluster(t, "podSelector: {}", "podSelector: {}\ningress: [{ports: [{port: 1}]}, {ports: [{port: 80}]}]")
	c.Policies[0].Name, c.Policies[1].Name = "deny", "allow"
	f := policy.Flow{Source: netip.MustParseAddr(outside), Destination: netip.MustParseAddr(backend), Protocol: policy.TCP, Port: 80}
	v := c.Evaluate(policy.Ingress, f)
	if !v.Allowed() || v.Policy == nil || v.Policy.Name != "allow" || v.Rule != 1 || len(v.Isolating) != 2 {
		t.Errorf("%+v", v)
	}
	f.Port = 81
	if v = c.Evaluate(policy.Ingress, f); v.Allowed() || v.Policy != nil || len(v.Isolating) != 2 {
		t.Errorf("%+v", v)
	}
}
