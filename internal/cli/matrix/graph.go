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
		edges[k].ports = append(edges[k].ports, c.port.String())
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

// syntax is how a language of graphs is written.
type syntax struct {
	begin, end string
	// namespace begins a group with an index and a name, and endNamespace ends it. node is a node with its index and its name.
	namespace, endNamespace, node string
	// edge writes an edge with its label.
	edge func(e *edge, label string) string
	// quoted is a text between quotation marks, without what the language takes for its own.
	quoted func(string) string
}

// mermaid is a flowchart for https://mermaid.js.org, which Markdown on code forges shows as a picture. Names of Kubernetes have none of
// the characters that are replaced; manifests may.
var mermaid = syntax{
	begin: "flowchart LR\n", namespace: "subgraph ns%d[%s]\n", endNamespace: "end\n", node: "n%d[%s]\n",
	edge: func(e *edge, label string) string {
		return fmt.Sprintf("n%d %s|%s| n%d\n", e.from, e.style("-->", "--x", "-.->"), label, e.to)
	},
	quoted: func(s string) string {
		return `"` + strings.NewReplacer("#", "#35;", `"`, "#quot;", "`", "#96;", "<", "#lt;", ">", "#gt;", "\n", " ").Replace(s) + `"`
	},
}

// dot is a graph for Graphviz.
var dot = syntax{
	begin: "digraph matrix {\n  rankdir=LR;\n  node [shape=box];\n", end: "}\n",
	namespace: "subgraph cluster_%d {\n    label=%s;\n", endNamespace: "}\n", node: "n%d [label=%s];\n",
	edge: func(e *edge, label string) string {
		return fmt.Sprintf("n%d -> n%d [label=%s, %s];\n", e.from, e.to, label, e.style("color=darkgreen", "color=red, arrowhead=tee", "style=dashed"))
	},
	quoted: func(s string) string {
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(s) + `"`
	},
}

// write the graph: the nodes of each namespace together, then the edges.
func (g *graph) write(out io.Writer, in syntax) {
	fmt.Fprint(out, in.begin)
	namespaces, nodes := g.byNamespace()
	for i, ns := range namespaces {
		by := "  "
		if ns != "" {
			fmt.Fprintf(out, by+in.namespace, i, in.quoted(ns))
			by = "    "
		}
		for _, n := range nodes[ns] {
			fmt.Fprintf(out, by+in.node, n, in.quoted(g.nodes[n].Name))
		}
		if ns != "" {
			fmt.Fprint(out, "  "+in.endNamespace)
		}
	}
	for _, e := range g.edges {
		fmt.Fprint(out, "  "+in.edge(e, in.quoted(e.label())))
	}
	fmt.Fprint(out, in.end)
}

// style chooses by the verdict of an edge.
func (e *edge) style(allowed, denied, other string) string {
	switch e.verdict {
	case model.Allowed:
		return allowed
	case model.Denied:
		return denied
	case model.NotAsked, model.Partial, model.Depends:
	}
	return other
}

// label has the ports and, where it is neither allowed nor denied, the verdict.
func (e *edge) label() string {
	text := strings.Join(e.ports, ", ")
	if e.verdict != model.Allowed && e.verdict != model.Denied {
		text += " (" + e.verdict.String() + ")"
	}
	return text
}
