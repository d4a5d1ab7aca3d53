package model

import (
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"
)

// A column for a DNS name has the verdict of a pod that has resolved it; it depends on the address where a network is denied before.
func TestAMatrixWithNames(t *testing.T) {
	c := &Cluster{
		Namespaces: []corev1.Namespace{{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{corev1.LabelMetadataName: "shop"}}}},
		Pods: []Pod{{Workload: Workload{"shop", "Deployment", "web"}, Pod: corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
		}}},
	}
	var p cnp.ClusterNetworkPolicy
	if err := yaml.UnmarshalStrict([]byte(`
metadata: {name: names}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {}}
  egress:
  - {action: Accept, to: [{domainNames: [first.example.com]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Deny, to: [{networks: [192.0.2.0/24]}]}
  - {action: Accept, to: [{domainNames: ["*.Example.com."]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}
  - {action: Deny, to: [{networks: [0.0.0.0/0]}]}
`), &p); err != nil {
		t.Fatal(err)
	}
	c.ClusterPolicies = []cnp.ClusterNetworkPolicy{p}
	if got := c.PolicyNames(); len(got) != 2 || got[0] != "any.example.com" || got[1] != "first.example.com" {
		t.Errorf("names of policies: %v", got)
	}
	m := c.Matrix(MatrixOptions{Names: map[string][]netip.Addr{
		"first.example.com": nil, "api.example.com": nil, "example.com": nil,
		"inside.example.com": {netip.MustParseAddr("192.0.2.7")}, "outside.example.com": {netip.MustParseAddr("198.51.100.7")},
	}})
	got := map[string]Verdict{}
	for j, column := range m.Columns {
		if len(m.Rows) != 1 || column.Port.Number != 443 && column.Port.Number != 0 {
			t.Errorf("%d rows, column %v", len(m.Rows), column)
		}
		if column.Port.Number == 443 || column.Workload.Name == "example.com" {
			got[column.Workload.Name] = m.Cells[0][j]
		} else if m.Cells[0][j] != Denied && column.Workload.Kind == "DomainName" {
			t.Errorf("%v: %v", column, m.Cells[0][j])
		}
	}
	want := map[string]Verdict{
		"first.example.com": Allowed, "api.example.com": Depends, "example.com": Denied, "inside.example.com": Denied, "outside.example.com": Allowed,
	}
	for name, v := range want {
		if got[name] != v {
			t.Errorf("%s: %v, want %v", name, got[name], v)
		}
	}
}
