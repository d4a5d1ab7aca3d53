package command

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is rows of cells under headings, with columns as wide as their widest cell.
type Table struct {
	Paint Paint
	rows  [][]Cell
}

// Cell is text in a colour.
type Cell struct{ SGR, Text string }

// Plain makes cells without colour.
func Plain(texts ...string) []Cell {
	var out []Cell
	for _, t := range texts {
		out = append(out, Cell{Text: t})
	}
	return out
}

// Head adds the headings.
func (t *Table) Head(texts ...string) {
	var row []Cell
	for _, text := range texts {
		row = append(row, Cell{Bold, text})
	}
	t.rows = append(t.rows, row)
}

// Add a row.
func (t *Table) Add(row ...Cell) { t.rows = append(t.rows, row) }

// Write the table.
func (t *Table) Write(out io.Writer) {
	var widths []int
	for _, row := range t.rows {
		for i, c := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Text))
		}
	}
	for _, row := range t.rows {
		var b strings.Builder
		for i, c := range row {
			b.WriteString(t.Paint.Text(c.SGR, c.Text))
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c.Text)+3))
			}
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
}
