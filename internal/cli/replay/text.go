package replay

import (
	"fmt"
	"io"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/flows"
	"github.com/kidoban/kidoban/internal/replay"
)

func writeText(out io.Writer, p command.Paint, r *replay.Report) {
	for _, line := range flows.Coverage(r.Coverage, r.Hidden) {
		fmt.Fprintln(out, line)
	}
	flows.Print(out, p, sections(r))
	fmt.Fprintln(out)
	for _, line := range summary(r) {
		fmt.Fprintln(out, line)
	}
}

func writeMarkdown(out io.Writer, r *replay.Report) {
	for _, line := range flows.Coverage(r.Coverage, r.Hidden) {
		fmt.Fprintln(out, "- "+command.Markdown(line))
	}
	flows.Markdown(out, sections(r))
	fmt.Fprintln(out)
	for _, line := range append(summary(r), r.Notes...) {
		fmt.Fprintln(out, "- "+command.Markdown(line))
	}
}

func sections(r *replay.Report) []flows.Section {
	head := []string{"FROM", "TO", "PORT", "CONNECTIONS", "FIRST", "LAST", "WHY"}
	out := []flows.Section{
		{Title: "Would be denied", SGR: command.Red, Head: head},
		{Title: "Would be allowed", SGR: command.Green, Head: head},
		{Title: "Would be denied if audited policies were enforced", SGR: command.Yellow, Head: head},
		{Title: "Would be allowed if audited policies were enforced", SGR: command.Yellow, Head: head},
		{Title: "Unknown", SGR: command.Yellow, Head: []string{"REASON", "CONNECTIONS", "FIRST", "LAST", "EXAMPLE"}},
	}
	for i, changes := range [...][]replay.Change{r.Changes, r.Audited} {
		for _, g := range group(changes) {
			to := &out[2*i]
			if g.After == replay.Allowed {
				to = &out[2*i+1]
			}
			to.Rows = append(to.Rows, []string{g.Outside(g.From), g.Outside(g.To), strings.Join(g.ports, ", "), flows.Number(g.Connections),
				flows.Time(g.First), flows.Time(g.Last), g.Why})
		}
	}
	for _, u := range r.Unknown {
		out[4].Rows = append(out[4].Rows, []string{string(u.Reason), flows.Number(u.Connections), flows.Time(u.First), flows.Time(u.Last), u.Example})
	}
	return out
}

// shownPorts is how many ports a line has.
const shownPorts = 8

// grouped is changes of a pair that differ in their ports only.
type grouped struct {
	replay.Change
	ports []string
}

// group changes, which are sorted.
func group(changes []replay.Change) (out []grouped) {
	more := 0
	for i := range changes {
		c := changes[i]
		if n := len(out); n > 0 && out[n-1].Joins(&c) {
			g := &out[n-1]
			g.Add(&c)
			if len(g.ports) < shownPorts {
				g.ports = append(g.ports, c.Ports())
				continue
			}
			if more == 0 {
				g.ports = append(g.ports, "")
			}
			more++
			g.ports[shownPorts] = fmt.Sprintf("%d more", more)
			continue
		}
		more = 0
		out = append(out, grouped{Change: c, ports: []string{c.Ports()}})
	}
	return out
}

func summary(r *replay.Report) (out []string) {
	if r.Judged.Records == 0 {
		out = append(out, "no connection was recorded: there is nothing to replay")
	} else {
		var denied, allowed, unknown uint64
		for _, c := range r.Changes {
			if c.After == replay.Denied {
				denied += c.Connections
			} else {
				allowed += c.Connections
			}
		}
		for _, u := range r.Unknown {
			unknown += u.Connections
		}
		out = append(out, fmt.Sprintf("%s connections: %s unchanged, %s would be denied, %s would be allowed, %s unknown",
			flows.Number(r.Judged.Connections), flows.Number(r.Unchanged.Connections), flows.Number(denied), flows.Number(allowed), flows.Number(unknown)))
	}
	if n := r.Replies.Records; n > 0 {
		out = append(out, fmt.Sprintf("late replies, which are not connections and were not judged: %s", flows.Number(n)))
	}
	if n := r.AuditedUnknown.Connections; n > 0 {
		out = append(out, fmt.Sprintf("unknown for %s connections: what enforcing the audited policies would change", flows.Number(n)))
	}
	return out
}
