package command

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Grid is a table of marks: rows by columns, and columns in groups that have a name. What is wider than Width is drawn in
// several parts below each other.
type Grid struct {
	Paint   Paint
	Width   int // 0: no bound
	Rows    []string
	Columns []GridColumn
	// Cell of a row and a column, by index.
	Cell func(row, column int) Cell
}

// GridColumn is a column's heading, under the heading of its group.
type GridColumn struct{ Group, Name string }

// Blanks between the columns of a group, and between groups.
const (
	columnGap = 1
	groupGap  = 3
)

type gridGroup struct {
	name    string
	columns []int
	widths  []int
	width   int
}

// Write the grid.
func (g *Grid) Write(out io.Writer) {
	first := 0
	for _, row := range g.Rows {
		first = max(first, utf8.RuneCountInString(row))
	}
	groups := g.groups()
	for start := 0; start < len(groups); {
		end, width := start, first
		for end < len(groups) && (end == start || g.Width == 0 || width+groupGap+groups[end].width <= g.Width) {
			width += groupGap + groups[end].width
			end++
		}
		if start > 0 {
			fmt.Fprintln(out)
		}
		g.part(out, first, groups[start:end])
		start = end
	}
}

func (g *Grid) groups() []gridGroup {
	var groups []gridGroup
	for i, c := range g.Columns {
		if n := len(groups); n == 0 || groups[n-1].name != c.Group {
			groups = append(groups, gridGroup{name: c.Group})
		}
		group := &groups[len(groups)-1]
		width := utf8.RuneCountInString(c.Name)
		for row := range g.Rows {
			width = max(width, utf8.RuneCountInString(g.Cell(row, i).Text))
		}
		group.columns, group.widths = append(group.columns, i), append(group.widths, width)
		if len(group.columns) > 1 {
			group.width += columnGap
		}
		group.width += width
	}
	for i := range groups { // the last column makes room for the group's name
		group := &groups[i]
		if more := utf8.RuneCountInString(group.name) - group.width; more > 0 {
			group.widths[len(group.widths)-1] += more
			group.width += more
		}
	}
	return groups
}

func (g *Grid) part(out io.Writer, first int, groups []gridGroup) {
	line := func(head string, cells func(gridGroup) []Cell, widths func(gridGroup) []int) {
		var b strings.Builder
		b.WriteString(pad(g.Paint, Cell{Text: head}, first))
		for _, group := range groups {
			w := widths(group)
			for i, c := range cells(group) {
				gap := columnGap
				if i == 0 {
					gap = groupGap
				}
				b.WriteString(strings.Repeat(" ", gap) + pad(g.Paint, c, w[i]))
			}
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
	line("", func(group gridGroup) []Cell { return []Cell{{Bold, group.name}} }, func(group gridGroup) []int { return []int{group.width} })
	each := func(group gridGroup) []int { return group.widths }
	line("", func(group gridGroup) []Cell {
		return slices.Collect(func(yield func(Cell) bool) {
			for _, i := range group.columns {
				if !yield(Cell{Dim, g.Columns[i].Name}) {
					return
				}
			}
		})
	}, each)
	for row, name := range g.Rows {
		line(name, func(group gridGroup) []Cell {
			var cells []Cell
			for _, i := range group.columns {
				cells = append(cells, g.Cell(row, i))
			}
			return cells
		}, each)
	}
}

func pad(p Paint, c Cell, width int) string {
	return p.Text(c.SGR, c.Text) + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(c.Text)))
}
