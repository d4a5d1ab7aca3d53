package ui

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/cli/model"
)

func readShop(t *testing.T) *model.Cluster {
	t.Helper()
	c, err := model.ReadPaths([]string{"../../examples/shop", "../../examples/shop/policies"}, "default", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lines of a graph: source, destination, port and verdict.
func (g Graph) lines() (out []string) {
	for i := range g.Edges.Source {
		for k := g.Edges.First[i]; k < g.Edges.First[i+1]; k++ {
			p := model.Port{Protocol: 6, Number: uint16(g.Edges.Port[k])}
			if g.Edges.Protocol[k] != 6 {
				p.Protocol = 17
			}
			out = append(out, fmt.Sprintf("%s > %s %s %d", g.Nodes.ID[g.Edges.Source[i]], g.Nodes.ID[g.Edges.Destination[i]], p, g.Edges.Verdict[k]))
		}
	}
	slices.Sort(out)
	return out
}

func TestTheGraphIsTheMatrix(t *testing.T) {
	c := readShop(t)
	g := get[Graph](t, serve(t, c), "/api/graph")
	var want []string
	m := c.Matrix(model.MatrixOptions{})
	for i, from := range m.Rows {
		for j, to := range m.Columns {
			if m.Cells[i][j] != model.NotAsked {
				want = append(want, fmt.Sprintf("%s > %s %s %d", from, to.Workload, to.Port, codeOf(m.Cells[i][j])))
			}
		}
	}
	slices.Sort(want)
	got := slices.DeleteFunc(g.lines(), func(l string) bool { return strings.Contains(l, outsidePrefix) })
	if !slices.Equal(got, want) {
		t.Errorf("graph:\n%s\nmatrix:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if g.Open+g.Denied != 0 || !slices.Equal(g.Namespaces, []string{"monitoring", "shop"}) {
		t.Errorf("%d open and %d denied pairs are left out; namespaces %v", g.Open, g.Denied, g.Namespaces)
	}
}

const withOutside = twoPods + `
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [203.0.113.0/24]}}], ports: [{port: 80}]}]
  egress: [{to: [{ipBlock: {cidr: 198.51.100.7/32}}], ports: [{port: 443}]}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: names}
spec:
  tier: Admin
  priority: 10
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  egress: [{action: Accept, to: [{domainNames: ["*.example.com"]}], protocols: [{tcp: {destinationPort: {number: 443}}}]}]
`

func TestWhatIsOutsideTheClusterHasNames(t *testing.T) {
	s := serve(t, read(t, withOutside))
	got := get[Graph](t, s, "/api/graph").lines()
	for line, want := range map[string]bool{
		"outside:internet > shop/web 80 0":        true,
		"outside:203.0.113.0/24 > shop/web 80 1":  true,
		"shop/web > outside:198.51.100.7 443 0":   true,
		"shop/web > outside:internet other 1":     true,
		"shop/db > outside:internet other 0":      true,
		"shop/web > outside:*.example.com 443 0":  true,
		"shop/db > outside:*.example.com 443 0":   false,
		"outside:internet > outside:internet 0 0": false,
	} {
		if slices.Contains(got, line) != want {
			t.Errorf("%s: want %t in\n%s", line, want, strings.Join(got, "\n"))
		}
	}
	for _, q := range []string{
		"from=outside:internet&to=shop/web", "from=outside:203.0.113.0/24&to=shop/web", "from=shop/web&to=outside:198.51.100.7", "from=shop/web&to=outside:*.example.com",
		"from=shop/db&to=outside:internet",
	} {
		e := get[Edge](t, s, "/api/edge?"+q)
		if len(e.Ports) == 0 || len(e.Ports[0].Sentences) == 0 || e.Ports[0].Sentences[0][0] == "" {
			t.Errorf("%s is not explained: %+v", q, e)
		}
	}
}

func TestAuditedPoliciesWouldDeny(t *testing.T) {
	c := read(t, twoPods+`
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop, labels: {kidoban.dev/enforcement: audit}}
spec: {podSelector: {matchLabels: {app: db}}}
`)
	s := serve(t, c)
	if got := get[Graph](t, s, "/api/graph").lines(); !slices.Contains(got, fmt.Sprintf("shop/web > shop/db 5432 %d", CodeWouldDeny)) {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
	list := get[struct{ Policies []Policy }](t, s, "/api/policies").Policies
	if len(list) != 1 || !list[0].Audit || len(list[0].Ingress.Nodes) != 1 {
		t.Errorf("policies: %+v", list)
	}
}

// big is a cluster of open and of isolated workloads.
func big(t *testing.T, n int) *model.Cluster {
	t.Helper()
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "{apiVersion: v1, kind: Pod, metadata: {name: p%d, namespace: ns%d, labels: {app: p}}, spec: {containers: [{name: c, ports: [{containerPort: 80}]}]}}\n---\n", i, i%8)
	}
	b.WriteString("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: in, namespace: ns0}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}\n")
	return read(t, b.String())
}

func TestALargeClusterCountsWhatItLeavesOut(t *testing.T) {
	const n = 80
	g := get[Graph](t, serve(t, big(t, n)), "/api/graph")
	pairs := n*(n-1) + 2*n // and the internet, in and out
	if got := len(g.Edges.Source) + g.Open + g.Denied; got != pairs {
		t.Errorf("%d edges, %d open and %d denied: %d of %d pairs", len(g.Edges.Source), g.Open, g.Denied, got, pairs)
	}
	if len(g.Edges.Source) != 10*9 { // within ns0
		t.Errorf("%d edges", len(g.Edges.Source))
	}
}
