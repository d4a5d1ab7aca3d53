package matrix

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

const peers = `
{apiVersion: v1, kind: Pod, metadata: {name: api, namespace: shop, labels: {app: api}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: free, namespace: shop}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: scraper, namespace: ops, labels: {app: scraper}}, spec: {containers: [{name: c, ports: [{containerPort: 9090}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: dns, namespace: kube-system, labels: {app: dns}}, spec: {containers: [{name: c, ports: [{containerPort: 53}]}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stranger, namespace: other}, spec: {containers: [{name: c}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}]}]
  egress: [{to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: dns}}}], ports: [{port: 53}]}]
`

func cluster(t *testing.T, text string) *model.Cluster {
	t.Helper()
	m := &model.Manifests{Namespace: "default"}
	if err := m.Read("test", strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	c, err := m.Cluster()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPeersOfANamespace: what policies let in from other namespaces, and out to them, is shown; the rest is counted.
func TestPeersOfANamespace(t *testing.T) {
	m := cluster(t, peers).Matrix(model.MatrixOptions{Namespaces: []string{"shop"}})
	var rows, columns []string
	for _, w := range m.Rows {
		rows = append(rows, w.String())
	}
	for _, c := range m.Columns {
		columns = append(columns, c.Workload.String())
	}
	if want := []string{"ops/scraper", "shop/api", "shop/free"}; !slices.Equal(rows, want) {
		t.Errorf("rows %v, want %v", rows, want)
	}
	if want := []string{"kube-system/dns", "shop/api", "shop/free"}; !slices.Equal(columns, want) {
		t.Errorf("columns %v, want %v", columns, want)
	}
	if m.Left != 1 {
		t.Errorf("%d are left out, want 1", m.Left)
	}
	if m.Cells[0][0] != model.NotAsked || m.Cells[0][1] != model.Allowed || m.Cells[1][0] != model.Allowed || m.Cells[2][1] != model.Denied {
		t.Errorf("%v", m.Cells)
	}
}

// TestNames: one name of two kinds is two rows and columns that differ.
func TestNames(t *testing.T) {
	c := cluster(t, peers+"---\n{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: api, namespace: shop}, spec: {template: {spec: {containers: [{name: c}]}}}}\n")
	table := &Table{Matrix: c.Matrix(model.MatrixOptions{Namespaces: []string{"shop"}})}
	var out bytes.Buffer
	table.draw(&out, command.Paint(false), 0)
	for want, times := range map[string]int{"shop/api (Pod)": 2, "shop/api (DaemonSet)": 2, "shop/free": 2, "shop/free (": 0, "1 workloads of other namespaces are not shown": 1} {
		if n := strings.Count(out.String(), want); n != times {
			t.Errorf("%q occurs %d times, want %d", want, n, times)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}
