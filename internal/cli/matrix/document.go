package matrix

import (
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// list writes a line for each cell: for clusters whose matrix is wider than a screen.
func (t *Table) list(out io.Writer, p command.Paint) {
	table := &command.Table{Paint: p}
	table.Head("FROM", "TO", "PORT", "VERDICT")
	name := t.names()
	for _, c := range t.cells() {
		verdict := command.Cell{SGR: mark(c.Verdict).SGR, Text: c.Verdict.String()}
		if c.Assumed || c.AssumesPrivate {
			verdict.Text += "*"
		}
		if c.Measured != "" {
			verdict.Text += ", measured " + c.Measured
		}
		table.Add(command.Cell{Text: name(c.From)}, command.Cell{Text: name(c.To)}, command.Cell{Text: c.port.String()}, verdict)
	}
	table.Write(out)
}

// names of the workloads in rows and columns.
func (t *Table) names() func(model.Workload) string {
	all := slices.Clone(t.Rows)
	for _, c := range t.Columns {
		all = append(all, c.Workload)
	}
	return model.Names(all)
}

// grid is the matrix as texts: the heading of each column, and for each row its name and its marks.
type grid struct {
	Columns []string
	Rows    []gridRow
}

type gridRow struct {
	Name  string
	Marks []gridMark
}

type gridMark struct {
	Text    string
	Verdict string // for the style of a page
}

func (t *Table) grid() grid {
	var g grid
	name := t.names()
	for _, c := range t.Columns {
		g.Columns = append(g.Columns, name(c.Workload)+" "+c.Port.String())
	}
	for i, row := range t.Rows {
		r := gridRow{Name: name(row)}
		for j := range t.Columns {
			r.Marks = append(r.Marks, gridMark{t.markOf(i, j).Text, t.Cells[i][j].String()})
		}
		g.Rows = append(g.Rows, r)
	}
	return g
}

// markdown writes a table as GitHub and GitLab show it (https://github.github.com/gfm, tables).
func (t *Table) markdown(out io.Writer) {
	g := t.grid()
	line := func(first string, rest []string) {
		fmt.Fprintf(out, "| %s |", command.Markdown(first))
		for _, text := range rest {
			fmt.Fprintf(out, " %s |", command.Markdown(text))
		}
		fmt.Fprintln(out)
	}
	line("from → to", g.Columns)
	fmt.Fprintln(out, "|---|"+strings.Repeat(":-:|", len(g.Columns)))
	for _, r := range g.Rows {
		var marks []string
		for _, m := range r.Marks {
			marks = append(marks, m.Text)
		}
		line(r.Name, marks)
	}
	fmt.Fprintln(out, "\n✔ allowed, ✘ denied, ± not the same for all pods, ? depends on an address that is not known, · no connection to ask about")
}

var page = template.Must(template.New("page").Parse(`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<title>Who reaches whom</title>
<style>
body { font: 14px system-ui, sans-serif; margin: 1rem; }
table { border-collapse: collapse; }
th, td { border: 1px solid #8885; padding: .2rem .5rem; text-align: center; }
thead th { position: sticky; top: 0; background: Canvas; vertical-align: bottom; }
tbody th { position: sticky; left: 0; background: Canvas; text-align: left; }
.allowed { color: light-dark(#06621b, #5fd37c); }
.denied { color: light-dark(#a30d0d, #ff8a8a); }
.partial, .depends { color: light-dark(#7a4d00, #f0c060); }
</style>
<table>
<caption>Rows connect to columns: ✔ allowed, ✘ denied, ± not the same for all pods, ? depends on an address that is not known, · no connection to ask about</caption>
<thead><tr><th scope="col">from → to</th>{{range .Columns}}<th scope="col">{{.}}</th>{{end}}</tr></thead>
<tbody>
{{range .Rows}}<tr><th scope="row">{{.Name}}</th>{{range .Marks}}<td class="{{.Verdict}}" title="{{.Verdict}}">{{.Text}}</td>{{end}}</tr>
{{end}}</tbody>
</table>
</html>
`))

// html writes a page that needs nothing else.
func (t *Table) html(out io.Writer) error { return page.Execute(out, t.grid()) }
