package explain

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// write an answer for a person. With many flows each has a line, and the denied ones have details.
func write(out io.Writer, p command.Paint, a *Answer) {
	for i := range a.Flows {
		if i > 0 {
			fmt.Fprintln(out)
		}
		writeFlow(out, p, &a.Flows[i])
	}
}

func writeFlow(out io.Writer, p command.Paint, f *Flow) {
	verdict := map[Verdict]string{
		Allowed: p.Text(command.Green, "ALLOWED"), Denied: p.Text(command.Red, "DENIED"), Depends: p.Text(command.Yellow, "DEPENDS"),
	}[f.Verdict]
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
	if f.IfEnforced != nil {
		writeIfEnforced(out, p, f.IfEnforced)
	}
	remark := func(kind, text string) {
		fmt.Fprintf(out, "\n  %s %s\n", p.Text(command.Yellow, kind), text)
	}
	switch {
	case f.Verdict != Depends:
	case f.Destination.DomainName != "":
		remark("no answer:", "the verdict depends on the addresses that the name resolves to")
	default:
		remark("no answer:", "the verdict depends on an address that is not known; give --pod-cidr")
	}
	for _, note := range f.Notes {
		remark("note:", note)
	}
	if f.Hint != "" {
		remark("hint:", f.Hint)
	}
}

func (e End) describe() string {
	if e.DomainName != "" {
		return e.DomainName
	}
	if e.Pod == "" {
		return e.Address.String()
	}
	address := e.Address.String()
	if e.Invented {
		address = "address not known"
	}
	if e.HostNetwork {
		address += ", host network"
	}
	if e.Workload == "" {
		return fmt.Sprintf("%s (%s)", e.name, address)
	}
	return fmt.Sprintf("%s (%s, %s)", e.name, e.Workload, address)
}

func writeHalf(out io.Writer, p command.Paint, h *Half) {
	mark := map[Verdict]string{Allowed: p.Text(command.Green, "✔"), Denied: p.Text(command.Red, "✘"), Depends: p.Text(command.Yellow, "?")}[h.Verdict]
	fmt.Fprintf(out, "\n  %s %s of %s: ", mark, h.Direction, p.Text(command.Bold, h.Of))
	switch h.Reason {
	case ReasonNoPod:
		fmt.Fprintln(out, "allowed: not a pod's own address, so no policy applies to it")
	case ReasonHostNetwork:
		fmt.Fprintln(out, "allowed: a pod on the host network, so no policy applies to it")
	case ReasonOwnNode:
		fmt.Fprintln(out, "allowed: NetworkPolicies do not apply between a pod and its own node")
	case ReasonNotIsolated:
		if len(h.Tiers) > 0 {
			fmt.Fprintf(out, "allowed: no rule of a ClusterNetworkPolicy decides, and no policy with policyType %s selects it\n", h.Direction)
			break
		}
		fmt.Fprintf(out, "allowed: no policy with policyType %s selects it\n", h.Direction)
	case ReasonClusterRule:
		fmt.Fprintf(out, "%s by %s\n", h.Verdict, h.Rule.describe())
		indent(out, p, h.Rule.short, "      ")
		if h.Rule.Unreadable != "" {
			fmt.Fprintf(out, "    %s the rule cannot be honoured, and denies everything: %s\n", p.Text(command.Yellow, "note:"), h.Rule.Unreadable)
		}
	case ReasonStrict:
		fmt.Fprintf(out, "denied: no policy with policyType %s selects it, and its node's mode, strict, isolates such pods\n", h.Direction)
	case ReasonRule:
		fmt.Fprintf(out, "allowed by NetworkPolicy %s, %s\n", h.Rule.Policy, h.Rule.Path)
		indent(out, p, h.Rule.short, "      ")
	case ReasonDepends:
		writeDepends(out, p, h)
	case ReasonDefaultDeny:
		writeDefaultDeny(out, p, h)
	}
	writeTiers(out, p, h)
	for _, b := range h.ByName {
		fmt.Fprintf(out, "    %s %s would allow it under the names %s\n", p.Text(command.Yellow, "note:"), b.Rule.describe(), strings.Join(b.Names, ", "))
	}
	if h.Assumes != "" {
		fmt.Fprintf(out, "    %s %s\n", p.Text(command.Yellow, "note:"), h.Assumes)
	}
	if h.InForce != nil {
		writeInForce(out, p, h.InForce)
	}
}

// writeTiers prints the chain of tiers.
func writeTiers(out io.Writer, p command.Paint, h *Half) {
	for _, s := range h.Tiers {
		text := map[string]string{
			OutcomeDefaultDeny: "isolated, and no rule allows it", OutcomeNotIsolated: "not isolated", OutcomeNoMatch: "no rule matches",
			OutcomeNotReached: "not reached", OutcomeOwnNode: "does not apply between a pod and its own node",
		}[s.Outcome]
		if text == "" {
			text = s.Outcome + " by " + s.Rule.describe()
		}
		if s.Rule != nil && s.Rule.Priority != nil {
			text += fmt.Sprintf(", priority %d", *s.Rule.Priority)
		}
		fmt.Fprintf(out, "    %s %s\n", p.Text(command.Bold, fmt.Sprintf("%-14s", s.Tier+":")), text)
	}
}

func writeDefaultDeny(out io.Writer, p command.Paint, h *Half) {
	fmt.Fprintf(out, "denied: %s this connection\n", selected(h.Isolating))
	if len(h.Nearest) == 0 {
		fmt.Fprintf(out, "      no %s rules at all\n", strings.ToLower(h.Direction))
	}
	for _, m := range h.Nearest {
		fmt.Fprintf(out, "    nearest: NetworkPolicy %s, %s\n", m.Policy, m.Path)
		indent(out, p, m.short, "      ")
		for i, why := range m.Why {
			if i == mostQuoted && len(m.Why) > mostQuoted+1 {
				fmt.Fprintf(out, "      … and %d more reasons, which -o json has\n", len(m.Why)-i)
				break
			}
			fmt.Fprintf(out, "      %s %s\n", p.Text(command.Yellow, "-"), why)
		}
	}
}

func selected(policies []string) string {
	if len(policies) == 1 {
		return "selected by NetworkPolicy " + policies[0] + "; none of its rules allows"
	}
	return fmt.Sprintf("selected by %d NetworkPolicies (%s); none of their rules allows", len(policies), strings.Join(policies, ", "))
}

// mostRanges is how many ranges of addresses a line has.
const mostRanges = 8

func writeDepends(out io.Writer, p command.Paint, h *Half) {
	fmt.Fprintln(out, "depends on the address of the other end, which is not known")
	for _, d := range h.Depends {
		var ranges []string
		for i, part := range d.Addresses {
			if i == mostRanges {
				ranges = append(ranges, fmt.Sprintf("… %d more ranges", len(d.Addresses)-i))
				break
			}
			ranges = append(ranges, part.String())
		}
		what := "denied: no rule allows it"
		switch {
		case d.Rule != nil && d.Allowed:
			what = "allowed by " + d.Rule.describe()
		case d.Rule != nil:
			what = "denied by " + d.Rule.describe()
		case d.Allowed:
			what = "allowed: no rule decides"
		}
		fmt.Fprintf(out, "    at %s: %s\n", strings.Join(ranges, ", "), what)
		if d.Rule != nil {
			indent(out, p, d.Rule.short, "      ")
		}
	}
}

func writeInForce(out io.Writer, p command.Paint, f *InForce) {
	for _, l := range f.Learned {
		fmt.Fprintf(out, "    on node %s: %s\n", f.Node, l.describe(time.Now()))
	}
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
