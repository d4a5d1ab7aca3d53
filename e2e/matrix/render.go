package matrix

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/kidoban/kidoban/e2e/reach"
)

// Style is how a table is drawn.
type Style struct {
	Color   bool
	Meaning bool // beside each result stands what the policies mean
}

// SGR parameters, ECMA-48.
const (
	plain  = ""
	bold   = "1"
	dim    = "2"
	red    = "31"
	green  = "32"
	yellow = "33"
	alarm  = "1;97;41"
)

func (s Style) paint(sgr, text string) string {
	if !s.Color || sgr == plain {
		return text
	}
	return "\x1b[" + sgr + "m" + text + "\x1b[0m"
}

// A span is text of one colour; a cell is made of spans.
type span struct{ sgr, text string }

type cell []span

func (c cell) text() string {
	var b strings.Builder
	for _, s := range c {
		b.WriteString(s.text)
	}
	return b.String()
}

func (c cell) width() int { return utf8.RuneCountInString(c.text()) }

// Blanks between the columns of a group, and between groups.
const (
	gap      = 1
	groupGap = 3
)

// Draw writes a table, with the sources as rows and the ports of the endpoints as columns.
func (s Style) Draw(out io.Writer, t *Table) {
	var rows []string
	for _, source := range t.Sources {
		if !slices.Contains(rows, source.Row) {
			rows = append(rows, source.Row)
		}
	}
	var columns []Column
	for _, endpoint := range t.Endpoints {
		if !slices.Contains(columns, endpoint.Column) {
			columns = append(columns, endpoint.Column)
		}
	}
	type place struct {
		row    string
		column Column
	}
	probes := map[place][]Probe{}
	for _, p := range t.Probes {
		at := place{p.Source.Row, p.Endpoint.Column}
		probes[at] = append(probes[at], p)
	}
	first := utf8.RuneCountInString(t.Title)
	for _, row := range rows {
		first = max(first, utf8.RuneCountInString(row))
	}
	drawn := map[string][]cell{}
	widths := make([]int, len(columns))
	for i, column := range columns {
		widths[i] = utf8.RuneCountInString(column.Port)
		for _, row := range rows {
			c := s.cell(probes[place{row, column}])
			drawn[row] = append(drawn[row], c)
			widths[i] = max(widths[i], c.width())
		}
	}
	widenGroups(columns, widths)

	names, nameWidths := groups(columns, widths)
	s.line(out, first, cell{{bold, t.Title}}, nameWidths, names, func(int) bool { return true })
	ports := make([]cell, len(columns))
	for i, column := range columns {
		ports[i] = cell{{dim, column.Port}}
	}
	starts := func(i int) bool { return i == 0 || columns[i-1].Group != columns[i].Group }
	s.line(out, first, nil, widths, ports, starts)
	for _, row := range rows {
		s.line(out, first, cell{{plain, row}}, widths, drawn[row], starts)
	}
}

// line writes a line of cells; starts tells which of them begin a group.
func (s Style) line(out io.Writer, first int, head cell, widths []int, cells []cell, starts func(i int) bool) {
	var b strings.Builder
	s.pad(&b, head, first)
	for i, c := range cells {
		blanks := gap
		if starts(i) {
			blanks = groupGap
		}
		b.WriteString(strings.Repeat(" ", blanks))
		s.pad(&b, c, widths[i])
	}
	fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
}

func (s Style) pad(b *strings.Builder, c cell, width int) {
	for _, part := range c {
		b.WriteString(s.paint(part.sgr, part.text))
	}
	b.WriteString(strings.Repeat(" ", max(0, width-c.width())))
}

// widenGroups makes the last column of a group wide enough for the group's name.
func widenGroups(columns []Column, widths []int) {
	total := 0
	for i, column := range columns {
		total += widths[i]
		if i == len(columns)-1 || columns[i+1].Group != column.Group {
			widths[i] += max(0, utf8.RuneCountInString(column.Group)-total)
			total = 0
			continue
		}
		total += gap
	}
}

// groups are the headings of the columns' groups, and their widths.
func groups(columns []Column, widths []int) (names []cell, nameWidths []int) {
	for i, column := range columns {
		if i == 0 || columns[i-1].Group != column.Group {
			names = append(names, cell{{bold, column.Group}})
			nameWidths = append(nameWidths, widths[i])
			continue
		}
		nameWidths[len(nameWidths)-1] += gap + widths[i]
	}
	return names, nameWidths
}

// cell shows the probes between one row and one column: one mark if both families agree, else one for each.
func (s Style) cell(probes []Probe) cell {
	if len(probes) == 0 {
		return cell{{dim, "·"}}
	}
	measured := marks(probes, func(p *Probe) reach.Outcome { return p.Result.Outcome })
	if !s.Meaning {
		return measured
	}
	meant := marks(probes, (*Probe).want)
	if slices.ContainsFunc(probes, func(p Probe) bool { return !p.Right() }) {
		return cell{{alarm, measured.text() + "≠" + meant.text()}}
	}
	for i := range meant {
		meant[i].sgr = dim
	}
	return append(append(measured, span{dim, "="}), meant...)
}

func marks(probes []Probe, outcome func(*Probe) reach.Outcome) cell {
	var byFamily [2][]reach.Outcome
	for i := range probes {
		family := 0
		if probes[i].Endpoint.Target.Address.Addr().Is6() {
			family = 1
		}
		byFamily[family] = append(byFamily[family], outcome(&probes[i]))
	}
	four, six := mark(byFamily[0]), mark(byFamily[1])
	switch {
	case len(byFamily[1]) == 0 || four == six:
		return cell{four}
	case len(byFamily[0]) == 0:
		return cell{six}
	}
	return cell{{dim, "4"}, four, {dim, "6"}, six}
}

// mark is one sign for several outcomes.
func mark(outcomes []reach.Outcome) span {
	if len(outcomes) == 0 {
		return span{dim, "·"}
	}
	for _, o := range outcomes {
		if o != outcomes[0] {
			return span{yellow, "±"}
		}
	}
	switch outcomes[0] {
	case reach.Open:
		return span{green, "✔"}
	case reach.TimedOut:
		return span{red, "✘"}
	case reach.Refused, reach.Failed:
	}
	return span{yellow, "!"}
}

// Legend explains the marks.
func (s Style) Legend(out io.Writer) {
	fmt.Fprintf(out, "%s answered   %s no answer   %s refused or another error   %s not the same for all replicas   %s not asked\n",
		s.paint(green, "✔"), s.paint(red, "✘"), s.paint(yellow, "!"), s.paint(yellow, "±"), s.paint(dim, "·"))
	fmt.Fprint(out, "IPv4 and IPv6 share a mark unless they differ (4✔6✘).")
	if s.Meaning {
		fmt.Fprintf(out, " Measured%swhat the policies mean; a difference is %s.", s.paint(dim, "="), s.paint(alarm, "✔≠✘"))
	}
	fmt.Fprintln(out)
}
