package matrix

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// edge is what one workload may do at another: all ports with one verdict.
type edge struct {
	from, to int // in graph.nodes
	verdict  model.Verdict
	ports    []string
}

// graph has the workloads of a matrix as nodes. Two of them have an edge for each verdict that there is between them.
type graph struct {
	nodes []model.Workload
	edges []*edge
}

// graph of the cells. Denied connections are left out unless the matrix has no others.
func (t *Table) graph() *graph {
	cells := t.cells()
	allDenied := !slices.ContainsFunc(cells, func(c Cell) bool { return c.Verdict != model.Denied })
	g := &graph{}
	at := map[model.Workload]int{}
	node := func(w model.Workload) int {
		i, ok := at[w]
		if !ok {
			i = len(g.nodes)
			at[w], g.nodes = i, append(g.nodes, w)
		}
		return i
	}
	type key struct {
		from, to int
		verdict  model.Verdict
	}
	edges := map[key]*edge{}
	for _, c := range cells {
		from, to := node(c.From), node(c.To)
		if c.Verdict == model.Denied && !allDenied {
			continue
		}
		k := key{from, to, c.Verdict}
		if edges[k] == nil {
			edges[k] = &edge{from: from, to: to, verdict: c.Verdict}
			g.edges = append(g.edges, edges[k])
		}
		edges[k].ports = append(edges[k].ports, c.port().String())
	}
	return g
}

// byNamespace are the indexes of the nodes of each namespace, in order; what is outside the cluster comes last, under "".
func (g *graph) byNamespace() (namespaces []string, nodes map[string][]int) {
	nodes = map[string][]int{}
	for i, w := range g.nodes {
		if nodes[w.Namespace] == nil {
			namespaces = append(namespaces, w.Namespace)
		}
		nodes[w.Namespace] = append(nodes[w.Namespace], i)
	}
	slices.SortFunc(namespaces, func(a, b string) int {
		if (a == "") != (b == "") {
			return strings.Compare(b, a)
		}
		return strings.Compare(a, b)
	})
	return namespaces, nodes
}

// mermaid writes a flowchart for https://mermaid.js.org, which Markdown on code forges shows as a picture.
func (g *graph) mermaid(out io.Writer) {
	fmt.Fprintln(out, "flowchart LR")
	namespaces, nodes := g.byNamespace()
	for i, ns := range namespaces {
		by := "  "
		if ns != "" {
			fmt.Fprintf(out, "  subgraph ns%d[\"%s\"]\n", i, mermaidText(ns))
			by = "    "
		}
		for _, n := range nodes[ns] {
			fmt.Fprintf(out, "%sn%d[\"%s\"]\n", by, n, mermaidText(g.nodes[n].Name))
		}
		if ns != "" {
			fmt.Fprintln(out, "  end")
		}
	}
	for _, e := range g.edges {
		arrow := map[model.Verdict]string{model.Allowed: "-->", model.Denied: "--x"}[e.verdict]
		if arrow == "" {
			arrow = "-.->"
		}
		fmt.Fprintf(out, "  n%d %s|\"%s\"| n%d\n", e.from, arrow, mermaidText(e.label()), e.to)
	}
}

// mermaidText is a text between quotation marks. Names of Kubernetes have none of these characters; manifests may.
func mermaidText(s string) string {
	return strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "\n", " ").Replace(s)
}

// dot writes a graph for Graphviz.
func (g *graph) dot(out io.Writer) {
	fmt.Fprintln(out, "digraph matrix {\n  rankdir=LR;\n  node [shape=box];")
	namespaces, nodes := g.byNamespace()
	for i, ns := range namespaces {
		by := "  "
		if ns != "" {
			fmt.Fprintf(out, "  subgraph cluster_%d {\n    label=%s;\n", i, dotText(ns))
			by = "    "
		}
		for _, n := range nodes[ns] {
			fmt.Fprintf(out, "%sn%d [label=%s];\n", by, n, dotText(g.nodes[n].Name))
		}
		if ns != "" {
			fmt.Fprintln(out, "  }")
		}
	}
	for _, e := range g.edges {
		style := map[model.Verdict]string{model.Allowed: "color=darkgreen", model.Denied: "color=red, arrowhead=tee"}[e.verdict]
		if style == "" {
			style = "style=dashed"
		}
		fmt.Fprintf(out, "  n%d -> n%d [label=%s, %s];\n", e.from, e.to, dotText(e.label()), style)
	}
	fmt.Fprintln(out, "}")
}

// dotText is a quoted string of Graphviz's language.
func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(s) + `"`
}

// label has the ports and, where it is neither allowed nor denied, the verdict.
func (e *edge) label() string {
	text := strings.Join(e.ports, ", ")
	if e.verdict != model.Allowed && e.verdict != model.Denied {
		text += " (" + e.verdict.String() + ")"
	}
	return text
}
