package flows

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

// Time is a time as text, in UTC.
func Time(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

// Number is a number with separators of thousands.
func Number(n uint64) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// Coverage describes how much of a time is recorded, in lines.
func Coverage(c observerapi.Coverage, hidden []string) (out []string) {
	text := fmt.Sprintf("recorded from %s to %s UTC", Time(c.Since), Time(c.Until))
	if replay.IsComplete(c) {
		out = append(out, text+": complete")
	} else {
		out = append(out, text+": incomplete")
	}
	if c.CompleteSince.After(c.Since) {
		out = append(out, "the observer has all flows since "+Time(c.CompleteSince))
	}
	if c.Truncated {
		out = append(out, "the observer's answer leaves out flows because of its limit")
	}
	for i := range c.Losses {
		out = append(out, loss(&c.Losses[i]))
	}
	if len(hidden) > 0 {
		out = append(out, "namespaces that the reader may not read: "+strings.Join(hidden, ", "))
	}
	return out
}

var lossReasons = map[string]string{
	"ring": "the kernel's ring was full", "rate": "too many kinds of flows", "map": "the kernel's map of records was full",
	"queue": "the observer was slow or away", "absent": "the node did not report", "restart": "the agent restarted",
}

func loss(l *observerapi.Loss) string {
	what := "an unknown number of connections"
	switch {
	case l.Packets > 0:
		what = Number(l.Packets) + " packets"
	case l.Records > 0:
		what = Number(l.Records) + " records"
	}
	reason := lossReasons[l.Reason]
	if reason == "" {
		reason = l.Reason
	}
	when := "until " + Time(l.Last)
	if l.First.Unix() > 0 {
		when = fmt.Sprintf("between %s and %s", Time(l.First), Time(l.Last))
	}
	return fmt.Sprintf("%s lost %s %s: %s", l.Where(), what, when, reason)
}

// Section is a table with a title.
type Section struct {
	Title string
	SGR   string
	Head  []string
	Rows  [][]string
}

// Print sections that have rows, as text.
func Print(out io.Writer, p command.Paint, sections []Section) {
	for _, s := range sections {
		if len(s.Rows) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", p.Text(s.SGR, s.Title))
		t := &command.Table{Paint: p}
		t.Head(s.Head...)
		for _, row := range s.Rows {
			t.Add(command.Plain(row...)...)
		}
		t.Write(out)
	}
}

// Markdown prints sections that have rows, as GitHub and GitLab show them.
func Markdown(out io.Writer, sections []Section) {
	line := func(cells []string) {
		for _, c := range cells {
			fmt.Fprintf(out, "| %s ", command.Markdown(c))
		}
		fmt.Fprintln(out, "|")
	}
	for _, s := range sections {
		if len(s.Rows) == 0 {
			continue
		}
		fmt.Fprintf(out, "\n### %s\n\n", command.Markdown(s.Title))
		line(s.Head)
		fmt.Fprintln(out, strings.Repeat("|---", len(s.Head))+"|")
		for _, row := range s.Rows {
			line(row)
		}
	}
}
