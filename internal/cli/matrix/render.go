// Package matrix shows which workload reaches which, by the policies and, where connections were made, as measured.
package matrix

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// Table is a matrix and, where connections were made, what came of them.
type Table struct {
	*model.Matrix
	// Measured is as Cells; nil where nothing was probed, NotAsked for a cell that was not.
	Measured [][]model.Verdict
	// Assumed are the cells whose verdict depends on the address of a pod, which is not known and was assumed to be another.
	Assumed [][]bool
	// Notes are about the input, such as policies of other engines, which are not evaluated.
	Notes []string
	// differs are the cells, by row and column, of which a connection went otherwise than is meant for its pods.
	differs map[[2]int]bool
}

// Cell is one entry of the JSON form.
type Cell struct {
	From     model.Workload `json:"from"`
	To       model.Workload `json:"to"`
	Protocol string         `json:"protocol"`
	// Port is 0 for a port that no rule names.
	Port     uint16        `json:"port"`
	Verdict  model.Verdict `json:"verdict"`
	Measured string        `json:"measured,omitempty"`
	// Assumed: the verdict depends on the address of a pod, which is not known and was assumed.
	Assumed bool `json:"assumed,omitempty"`
	// AssumesPrivate: the verdict is only right if pods whose addresses are not known have private ones.
	AssumesPrivate bool `json:"assumesPrivate,omitempty"`

	port model.Port // as Protocol and Port have it
}

// Cells in the order of rows and columns, without those that there is nothing to ask about.
func (t *Table) cells() []Cell {
	out := []Cell{}
	for i, row := range t.Rows {
		for j, column := range t.Columns {
			if t.Cells[i][j] == model.NotAsked {
				continue
			}
			c := Cell{From: row, To: column.Workload, Protocol: column.Port.Protocol.String(), Port: column.Port.Number, Verdict: t.Cells[i][j], port: column.Port}
			if t.Measured != nil {
				c.Measured = t.Measured[i][j].String()
			}
			c.Assumed = t.Assumed != nil && t.Assumed[i][j]
			c.AssumesPrivate = t.AssumesPrivate != nil && t.AssumesPrivate[i][j]
			out = append(out, c)
		}
	}
	return out
}

// Wrong counts the cells where the measured verdict is not the expected one, and all cells that were probed.
func (t *Table) Wrong() (wrong, asked int) {
	for i := range t.Measured {
		for j, measured := range t.Measured[i] {
			if measured == model.NotAsked {
				continue
			}
			asked++
			if measured != t.Cells[i][j] {
				wrong++
			}
		}
	}
	return wrong, asked
}

// matrix is a table's machine-readable form.
type matrix struct {
	Cells []Cell `json:"cells"`
	// NotShown is the number of workloads of other namespaces that are left out.
	NotShown int      `json:"notShown,omitempty"`
	Notes    []string `json:"notes,omitempty"`
}

// Kinds that a table is printed as.
func Kinds() command.Kinds { return command.Kinds{"Matrix": matrix{}} }

// Print in a format.
func (t *Table) Print(env *command.Env, output *command.Output, width int) error {
	switch {
	case output.Is("csv"):
		return t.csv(env.Out)
	case output.Is("list"):
		t.list(env.Out, env.Paint())
		return nil
	case output.Is("markdown"):
		t.markdown(env.Out)
		return nil
	case output.Is("html"):
		return t.html(env.Out)
	case output.Is("mermaid"):
		t.graph().write(env.Out, mermaid)
		return nil
	case output.Is("dot"):
		t.graph().write(env.Out, dot)
		return nil
	}
	return output.Print(env.Out, matrix{t.cells(), t.Left, t.Notes}, func(out io.Writer) { t.draw(out, env.Paint(), width) })
}

func (t *Table) csv(out io.Writer) error {
	w := csv.NewWriter(out)
	head := []string{"from_namespace", "from_kind", "from", "to_namespace", "to_kind", "to", "protocol", "port", "verdict"}
	if t.Measured != nil {
		head = append(head, "measured")
	}
	_ = w.Write(append(head, "assumed"))
	for _, c := range t.cells() {
		line := []string{
			csvText(c.From.Namespace), csvText(c.From.Kind), csvText(c.From.Name), csvText(c.To.Namespace), csvText(c.To.Kind), csvText(c.To.Name), c.Protocol, strconv.Itoa(int(c.Port)), c.Verdict.String(),
		}
		if t.Measured != nil {
			line = append(line, c.Measured)
		}
		assumed := ""
		if c.Assumed || c.AssumesPrivate {
			assumed = "true"
		}
		_ = w.Write(append(line, assumed))
	}
	w.Flush()
	return w.Error()
}

// csvText is a name that a spreadsheet does not take for a formula. No valid name of an object begins with these characters.
func csvText(s string) string {
	if s != "" && strings.Contains("=+-@", s[:1]) {
		return "'" + s
	}
	return s
}

func (t *Table) draw(out io.Writer, p command.Paint, width int) {
	g := &command.Grid{Paint: p, Width: width}
	name := t.names()
	for _, row := range t.Rows {
		g.Rows = append(g.Rows, name(row))
	}
	for _, c := range t.Columns {
		g.Columns = append(g.Columns, command.GridColumn{Group: name(c.Workload), Name: c.Port.String()})
	}
	assumed, private := false, false
	g.Cell = func(i, j int) command.Cell {
		assumed = assumed || t.Assumed != nil && t.Assumed[i][j]
		private = private || t.AssumesPrivate != nil && t.AssumesPrivate[i][j]
		return t.markOf(i, j)
	}
	g.Write(out)
	fmt.Fprintln(out)
	fmt.Fprintf(out, "rows connect to columns: %s allowed   %s denied   %s not the same for all pods (explain shows which)   %s no connection to ask about\n",
		p.Text(command.Green, "✔"), p.Text(command.Red, "✘"), p.Text(command.Yellow, "±"), p.Text(command.Dim, "·"))
	if assumed || slices.ContainsFunc(t.Cells, func(row []model.Verdict) bool { return slices.Contains(row, model.Depends) }) {
		fmt.Fprintf(out, "%s depends on the address of a pod, which is not known: give --pod-cidr\n", p.Text(command.Yellow, "?"))
	}
	if private {
		fmt.Fprintln(out, "* only if the pods have private addresses, as is assumed where they are not known: give --pod-cidr")
	}
	if t.Measured != nil {
		fmt.Fprintf(out, "measured=expected; a difference is %s\n", p.Text(command.Alarm, "✔≠✘"))
	}
	if t.Left > 0 {
		fmt.Fprintf(out, "%d workloads of other namespaces are not shown: they connect only where no policy isolates\n", t.Left)
	}
}

// markOf a cell: its verdict, what was measured, and whether it is assumed.
func (t *Table) markOf(i, j int) command.Cell {
	cell := t.cell(i, j)
	if t.Assumed != nil && t.Assumed[i][j] {
		cell.Text += "?"
	}
	if t.AssumesPrivate != nil && t.AssumesPrivate[i][j] {
		cell.Text += "*"
	}
	return cell
}

func (t *Table) cell(i, j int) command.Cell {
	expected := mark(t.Cells[i][j])
	if t.Measured == nil || t.Measured[i][j] == model.NotAsked {
		return expected
	}
	if measured := mark(t.Measured[i][j]); measured != expected {
		return command.Cell{SGR: command.Alarm, Text: measured.Text + "≠" + expected.Text}
	}
	return command.Cell{SGR: expected.SGR, Text: expected.Text + "=" + expected.Text}
}

func mark(v model.Verdict) command.Cell {
	switch v {
	case model.Allowed:
		return command.Cell{SGR: command.Green, Text: "✔"}
	case model.Denied:
		return command.Cell{SGR: command.Red, Text: "✘"}
	case model.Partial:
		return command.Cell{SGR: command.Yellow, Text: "±"}
	case model.Depends:
		return command.Cell{SGR: command.Yellow, Text: "?"}
	case model.NotAsked:
	}
	return command.Cell{SGR: command.Dim, Text: "·"}
}
