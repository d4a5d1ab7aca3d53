package model

import (
	"fmt"
	"strings"
	"testing"
)

// bigText is 20,000 pods in 2,000 workloads of 100 namespaces, and 2,000 policies, as manifests.
func bigText() string {
	var b strings.Builder
	for n := range 100 {
		fmt.Fprintf(&b, "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns-%d, labels: {team: t%d}}\n---\n", n, n%10)
		for w := range 20 {
			fmt.Fprintf(&b, `apiVersion: apps/v1
kind: Deployment
metadata: {name: app-%[2]d, namespace: ns-%[1]d}
spec:
  replicas: 10
  selector: {matchLabels: {app: app-%[2]d}}
  template:
    metadata: {labels: {app: app-%[2]d, tier: t%[3]d}}
    spec:
      containers:
      - name: main
        image: example.com/app
        ports: [{name: http, containerPort: 8080}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: app-%[2]d, namespace: ns-%[1]d}
spec:
  podSelector: {matchLabels: {app: app-%[2]d}}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {tier: t%[3]d}}}, {namespaceSelector: {matchLabels: {team: t%[3]d}}, podSelector: {matchLabels: {app: app-%[2]d}}}]
    ports: [{port: http}]
  - from: [{ipBlock: {cidr: 10.%[1]d.%[2]d.0/24}}]
  egress:
  - to: [{namespaceSelector: {}}]
    ports: [{port: 53, protocol: UDP}, {port: 8080}]
---
`, n, w, w%3)
		}
	}
	return b.String()
}

func bigCluster(b *testing.B) *Cluster {
	b.Helper()
	m := &Manifests{Namespace: "default"}
	if err := m.Read("big", strings.NewReader(bigText())); err != nil {
		b.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		b.Fatal(err)
	}
	if len(c.Pods) != 20000 || len(c.Policies) != 2000 {
		b.Fatalf("%d pods, %d policies", len(c.Pods), len(c.Policies))
	}
	return c
}

func BenchmarkMatrixOfBigCluster(b *testing.B) {
	c := bigCluster(b)
	for b.Loop() {
		if m := c.Matrix(MatrixOptions{}); len(m.Rows) != 2000 {
			b.Fatal(len(m.Rows))
		}
	}
}
