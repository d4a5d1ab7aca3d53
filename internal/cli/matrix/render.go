// Package matrix shows who reaches whom, as policies mean it and, where it was probed, as it is.
package matrix

import (
	"encoding/csv"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// Table is a matrix and, where connections were made, what came of them.
type Table struct {
	*model.Matrix
	// Measured is as Cells; nil where nothing was probed, NotAsked for a cell that was not.
	Measured [][]model.Verdict
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
}

// Cells in the order of rows and columns, without those that there is nothing to ask about.
func (t *Table) cells() []Cell {
	out := []Cell{}
	for i, row := range t.Rows {
		for j, column := range t.Columns {
			if t.Cells[i][j] == model.NotAsked {
				continue
			}
			c := Cell{From: row, To: column.Workload, Protocol: column.Port.Protocol.String(), Port: column.Port.Number, Verdict: t.Cells[i][j]}
			if t.Measured != nil {
				c.Measured = t.Measured[i][j].String()
			}
			out = append(out, c)
		}
	}
	return out
}

// Wrong counts the cells that went otherwise than policies mean, and Asked those that were probed.
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

// Print in a format.
func (t *Table) Print(env *command.Env, output *command.Output, width int) error {
	if output.Is("csv") {
		return t.csv(env.Out)
	}
	return output.Print(env.Out, struct {
		Cells []Cell `json:"cells"`
	}{t.cells()}, func(out io.Writer) { t.draw(out, env.Paint(), width) })
}

func (t *Table) csv(out io.Writer) error {
	w := csv.NewWriter(out)
	head := []string{"from_namespace", "from_kind", "from", "to_namespace", "to_kind", "to", "protocol", "port", "verdict"}
	if t.Measured != nil {
		head = append(head, "measured")
	}
	_ = w.Write(head)
	for _, c := range t.cells() {
		line := []string{c.From.Namespace, c.From.Kind, c.From.Name, c.To.Namespace, c.To.Kind, c.To.Name, c.Protocol, strconv.Itoa(int(c.Port)), c.Verdict.String()}
		if t.Measured != nil {
			line = append(line, c.Measured)
		}
		_ = w.Write(line)
	}
	w.Flush()
	return w.Error()
}

func (t *Table) draw(out io.Writer, p command.Paint, width int) {
	g := &command.Grid{Paint: p, Width: width}
	for _, row := range t.Rows {
		g.Rows = append(g.Rows, row.String())
	}
	for _, c := range t.Columns {
		g.Columns = append(g.Columns, command.GridColumn{Group: c.Workload.String(), Name: c.Port.String()})
	}
	g.Cell = func(i, j int) command.Cell {
		meant := mark(t.Cells[i][j])
		if t.Measured == nil || t.Measured[i][j] == model.NotAsked {
			return meant
		}
		if measured := mark(t.Measured[i][j]); measured != meant {
			return command.Cell{SGR: command.Alarm, Text: measured.Text + "≠" + meant.Text}
		}
		return command.Cell{SGR: meant.SGR, Text: meant.Text + "=" + meant.Text}
	}
	g.Write(out)
	fmt.Fprintln(out)
	fmt.Fprintf(out, "rows connect to columns: %s allowed   %s refused   %s not the same for all pods (explain tells)   %s nothing to ask\n",
		p.Text(command.Green, "✔"), p.Text(command.Red, "✘"), p.Text(command.Yellow, "±"), p.Text(command.Dim, "·"))
	if slices.ContainsFunc(t.Cells, func(row []model.Verdict) bool { return slices.Contains(row, model.Depends) }) {
		fmt.Fprintf(out, "%s depends on the address of a pod, which is not known: give --pod-cidr\n", p.Text(command.Yellow, "?"))
	}
	if t.Measured != nil {
		fmt.Fprintf(out, "measured=meant; a difference is %s\n", p.Text(command.Alarm, "✔≠✘"))
	}
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
	}
	return command.Cell{SGR: command.Dim, Text: "·"}
}
