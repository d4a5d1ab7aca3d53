package status

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
)

func write(out io.Writer, p command.Paint, s *Status) {
	ready := 0
	for _, n := range s.Nodes {
		if n.Ready {
			ready++
		}
	}
	fmt.Fprintf(out, "Controller: %s.  Agents: %d/%d nodes.  ", s.Controller, ready, len(s.Nodes))
	everywhere := 0
	for i := range s.Policies {
		if s.Policies[i].Everywhere() {
			everywhere++
		}
	}
	fmt.Fprintf(out, "Policies: %d/%d in force everywhere.", everywhere, len(s.Policies))
	if s.Denied >= 0 {
		fmt.Fprintf(out, "  Denied in the last %s: %d.", agentapi.DeniedWithin, s.Denied)
	}
	fmt.Fprintln(out)
	writeSource(out, s)

	fmt.Fprintln(out)
	t := &command.Table{Paint: p}
	t.Head("NODE", "AGENT", "READY", "VERSION", "RESTARTS", "PODS", "AUDIT", "DRIFT", "KERNEL")
	for _, n := range s.Nodes {
		mark := command.Cell{SGR: command.Green, Text: "yes"}
		if !n.Ready {
			mark = command.Cell{SGR: command.Red, Text: "no"}
		}
		row := command.Plain(n.Name, dash(n.Agent))
		row = append(row, mark)
		t.Add(append(row, command.Plain(dash(n.Version), fmt.Sprint(n.Restarts), fmt.Sprint(n.Pods), fmt.Sprint(n.Audit), fmt.Sprint(n.Drift), n.Kernel)...)...)
	}
	t.Write(out)
	if len(s.Policies) > 0 {
		fmt.Fprintln(out)
		writePolicies(out, p, s.Policies)
	}
	if len(s.Resolvers) > 0 {
		fmt.Fprintf(out, "\nTrusted DNS resolvers: %s\n", resolvers(s.Resolvers))
	}
	if len(s.Unseen) > 0 {
		fmt.Fprintf(out, "\n%s\n", p.Text(command.Yellow, "Interfaces that policies do not apply to:"))
		for _, u := range s.Unseen {
			fmt.Fprintf(out, "  pod %s/%s: %s (%s)\n", u.Namespace, u.Pod, u.Name, u.Kind)
		}
	}
	writeBootGaps(out, p, s.Nodes)
	if len(s.Attention) > 0 {
		fmt.Fprintf(out, "\n%s\n", p.Text(command.Yellow, "Needs action:"))
		for _, a := range s.Attention {
			fmt.Fprintf(out, "  %s\n", a)
		}
	}
}

// writeSource writes that the observer was asked, if it was.
func writeSource(out io.Writer, s *Status) {
	if s.Observer != "" {
		fmt.Fprintf(out, "From the observer, pod %s: the reports of %d of %d nodes.\n", s.Observer, s.Observed, len(s.Nodes))
	}
}

// mostResolvers is how many are printed.
const mostResolvers = 8

// resolvers is "10.96.0.10:53 (3 nodes), 10.0.0.1:53 (3 nodes)".
func resolvers(list []Resolver) string {
	var out []string
	for i, r := range list {
		if i == mostResolvers {
			out = append(out, fmt.Sprintf("and %d more", len(list)-i))
			break
		}
		nodes := "nodes"
		if r.Nodes == 1 {
			nodes = "node"
		}
		out = append(out, fmt.Sprintf("%s (%d %s)", r.Address, r.Nodes, nodes))
	}
	return strings.Join(out, ", ")
}

func writeBootGaps(out io.Writer, p command.Paint, nodes []Node) {
	isFirst := true
	for _, n := range nodes {
		if n.BootGap == "" {
			continue
		}
		if isFirst {
			fmt.Fprintf(out, "\n%s\n", p.Text(command.Yellow, "Nodes where pods may start after a boot before the agent does, with their container runtimes:"))
		}
		isFirst = false
		fmt.Fprintf(out, "  %s: %s\n", n.Name, n.BootGap)
	}
}

func writePolicies(out io.Writer, p command.Paint, policies []Policy) {
	t := &command.Table{Paint: p}
	t.Head("NAMESPACE", "POLICY", "GENERATION", "RESOLVED", "GROUPS", "NODES")
	for i := range policies {
		pol := &policies[i]
		sgr := command.Green
		if !pol.Everywhere() {
			sgr = command.Red
		}
		t.Add(append(command.Plain(dash(pol.Namespace), pol.Name, fmt.Sprint(pol.Generation), pol.Resolved, fmt.Sprint(pol.Groups)), command.Cell{SGR: sgr, Text: inForce(pol)})...)
	}
	t.Write(out)
}

// inForce is "12/12 in force, slowest 140 ms".
func inForce(p *Policy) string {
	text := ""
	if p.Audited {
		text = "audited"
		if p.AuditedSince != nil {
			text += " since " + p.AuditedSince.UTC().Format(time.RFC3339)
		}
		text += ": "
	}
	if len(p.Nodes) == 0 {
		return text + "no pods there"
	}
	text += fmt.Sprintf("%d/%d in force", p.InForce, len(p.Nodes))
	if p.InForce > 0 && p.SlowestSeconds > 0 {
		text += ", slowest " + duration(p.SlowestSeconds)
	}
	return text
}

func duration(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Milliseconds())
	}
	return d.Round(100 * time.Millisecond).String()
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func writePolicy(out io.Writer, p command.Paint, pol *Policy, attention []string) {
	fmt.Fprintf(out, "%s, generation %d: resolved %s, %d groups, %s\n", pol.describe(), pol.Generation, pol.Resolved, pol.Groups, inForce(pol))
	if pol.Message != "" {
		fmt.Fprintf(out, "  %s %s\n", p.Text(command.Yellow, "-"), pol.Message)
	}
	if len(pol.Nodes) > 0 {
		fmt.Fprintln(out)
		t := &command.Table{Paint: p}
		t.Head("NODE", "STATE", "GENERATION", "PODS", "LATENCY", "WAITING FOR")
		for _, n := range pol.Nodes {
			sgr := command.Green
			if n.State != agentapi.StateInForce {
				sgr = command.Red
			}
			generation, latency := "-", "-"
			if n.Generation > 0 {
				generation, latency = fmt.Sprint(n.Generation), duration(n.LatencySeconds)
			}
			t.Add(command.Cell{Text: n.Node}, command.Cell{SGR: sgr, Text: n.State}, command.Cell{Text: generation}, command.Cell{Text: fmt.Sprint(n.Pods)},
				command.Cell{Text: latency}, command.Cell{Text: dash(strings.Join(n.WaitingFor, ", "))})
		}
		t.Write(out)
	}
	if len(pol.Names) > 0 {
		fmt.Fprintln(out)
		t := &command.Table{Paint: p}
		t.Head("DOMAIN NAME", "LEARNED ON")
		for _, n := range pol.Names {
			t.Add(command.Plain(n.Name, fmt.Sprintf("%d/%d nodes", n.Learned, n.Nodes))...)
		}
		t.Write(out)
	}
	writeLive(out, p, pol.Live)
	for _, n := range pol.Nodes {
		if n.Problem != "" {
			isolates := "isolates"
			if pol.Audited {
				isolates = "would isolate"
			}
			fmt.Fprintf(out, "  %s %s %s pods without the policy's rules. %s\n", p.Text(command.Yellow, "-"), n.Node, isolates, n.Problem)
		}
	}
	for _, a := range attention {
		fmt.Fprintf(out, "\n%s %s", p.Text(command.Yellow, "needs action:"), a)
	}
	if len(attention) > 0 {
		fmt.Fprintln(out)
	}
}
