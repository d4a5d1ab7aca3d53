package explain

import (
	"fmt"
	"io"
	"strings"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// write an answer for a person. With many flows each has a line, and those that are refused are told at length.
func write(out io.Writer, p command.Paint, a *Answer) {
	for i := range a.Flows {
		if i > 0 {
			fmt.Fprintln(out)
		}
		writeFlow(out, p, &a.Flows[i])
	}
}

func writeFlow(out io.Writer, p command.Paint, f *Flow) {
	verdict := p.Text(command.Green, "ALLOWED")
	if !f.Allowed {
		verdict = p.Text(command.Red, "REFUSED")
	}
	port := fmt.Sprintf("%s %d", f.Protocol, f.Port)
	if f.Port == 0 {
		port = "a port that no rule names"
	}
	through := ""
	if f.Service != "" {
		through = fmt.Sprintf(" (through Service %s)", f.Service)
	}
	fmt.Fprintf(out, "%s  %s → %s %s%s\n", verdict, f.Source.describe(), f.Destination.describe(), port, through)
	if f.Always != "" {
		fmt.Fprintf(out, "  %s\n", f.Always)
	}
	for i := range f.Halves {
		writeHalf(out, p, &f.Halves[i])
	}
	if f.Hint != "" {
		fmt.Fprintf(out, "\n  %s %s\n", p.Text(command.Yellow, "hint:"), f.Hint)
	}
}

func (e End) describe() string {
	if e.Pod == "" {
		return e.Address.String()
	}
	if e.Workload == "" {
		return fmt.Sprintf("%s (%s)", e.name, e.Address)
	}
	return fmt.Sprintf("%s (%s, %s)", e.name, e.Workload, e.Address)
}

func writeHalf(out io.Writer, p command.Paint, h *Half) {
	mark := p.Text(command.Green, "✔")
	if !h.Allowed {
		mark = p.Text(command.Red, "✘")
	}
	fmt.Fprintf(out, "\n  %s %s of %s: ", mark, h.Direction, p.Text(command.Bold, h.Of))
	switch h.Reason {
	case ReasonNoPod:
		fmt.Fprintln(out, "not a pod's own address, so no policy is about it")
	case ReasonNotIsolated:
		fmt.Fprintf(out, "allowed: no policy with policyType %s selects it\n", h.Direction)
	case ReasonStrict:
		fmt.Fprintf(out, "refused: no policy with policyType %s selects it, and mode strict of its node closes such a pod\n", h.Direction)
	case ReasonRule:
		fmt.Fprintf(out, "allowed by NetworkPolicy %s, %s\n", h.Rule.Policy, h.Rule.Path)
		indent(out, p, h.Rule.Quote, "      ")
	case ReasonDefaultDeny:
		fmt.Fprintf(out, "refused: %s, and no rule of theirs allows this\n", isolate(h.Isolating))
		if len(h.Nearest) == 0 {
			fmt.Fprintf(out, "      they have no %s rules at all\n", strings.ToLower(h.Direction))
		}
		for _, m := range h.Nearest {
			fmt.Fprintf(out, "    nearest: NetworkPolicy %s, %s\n", m.Policy, m.Path)
			indent(out, p, m.Quote, "      ")
			for _, why := range m.Why {
				fmt.Fprintf(out, "      %s %s\n", p.Text(command.Yellow, "but"), why)
			}
		}
	}
	if h.InForce != nil {
		writeInForce(out, p, h.InForce)
	}
}

func isolate(policies []string) string {
	if len(policies) == 1 {
		return "NetworkPolicy " + policies[0] + " isolates it"
	}
	return fmt.Sprintf("%d NetworkPolicies isolate it (%s)", len(policies), strings.Join(policies, ", "))
}

func writeInForce(out io.Writer, p command.Paint, f *InForce) {
	if len(f.Differs) == 0 {
		fmt.Fprintf(out, "    on node %s: %s, the same\n", f.Node, f.State)
		return
	}
	fmt.Fprintf(out, "    on node %s: %s\n", f.Node, f.State)
	for _, d := range f.Differs {
		fmt.Fprintf(out, "      %s %s\n", p.Text(command.Alarm, "≠"), d)
	}
}

func indent(out io.Writer, p command.Paint, text, by string) {
	for line := range strings.Lines(text) {
		fmt.Fprintf(out, "%s%s\n", by, p.Text(command.Dim, strings.TrimRight(line, "\n")))
	}
}
