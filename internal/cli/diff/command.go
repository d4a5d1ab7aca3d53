// Package diff says what changes if manifests are applied.
package diff

import (
	"fmt"
	"io"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var base, outside []string
	var prune bool
	cmd := &cobra.Command{
		Use:   "diff -f NEW [--base OLD]",
		Short: "Show what manifests would change: who gains and who loses which ports",
		Long: `Show what changes if these manifests are applied: policies that are added, changed and removed, and for each pair of workloads the
ports that become reachable and those that are lost, exactly.

They are compared with the live cluster, where nothing is removed unless --prune says that the manifests are all the policies of their
namespaces; or with the manifests of --base, which they take the place of: a policy that is only there is removed.

The exit code is 1 when something changes, so that a pipeline can stop for a person to look.`,
		Example: `  # What would this do to the cluster?
  kubectl kidoban diff -f new/

  # In a merge request: this branch against the main one
  kubectl kidoban diff --base main/deploy -f deploy

  # Helm
  helm template ./chart | kubectl kidoban diff -n shop -f -`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd)
	source := command.AddSource(cmd)
	cmd.Flags().StringArrayVar(&base, "base", nil, "Compare with these manifests instead of the live cluster; may be repeated.")
	cmd.Flags().BoolVar(&prune, "prune", false, "Take policies as removed that are in the manifests' namespaces and not among them.")
	cmd.Flags().StringArrayVar(&outside, "outside", nil, "Ask about this address outside the cluster on its own, too; may be repeated.")
	_ = cmd.MarkFlagRequired("filename")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		manifests, err := env.Cluster(cmd.Context(), source)
		if err != nil {
			return err
		}
		before, err := env.ClusterOf(cmd.Context(), source, base)
		if err != nil {
			return err
		}
		after, err := before.Apply(manifests, prune)
		if err != nil {
			return err
		}
		if len(base) > 0 {
			after.Policies = manifests.Policies
		}
		var addresses []netip.Addr
		for _, text := range outside {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return fmt.Errorf("--outside %s is no address", text)
			}
			addresses = append(addresses, addr.Unmap())
		}
		d := model.NewDifference(before, after, unique(addresses)...)
		if err := output.Print(env.Out, d, func(out io.Writer) { write(out, env.Paint(), d) }); err != nil {
			return err
		}
		return command.Yes(d.Empty())
	}
	return cmd
}

func unique(addresses []netip.Addr) []netip.Addr {
	seen := map[netip.Addr]bool{}
	var out []netip.Addr
	for _, a := range addresses {
		if !seen[a] {
			seen[a] = true
			out = append(out, a)
		}
	}
	return out
}

func write(out io.Writer, p command.Paint, d *model.Difference) {
	if d.Empty() {
		fmt.Fprintln(out, "nothing changes")
		return
	}
	for _, name := range d.Added {
		fmt.Fprintf(out, "%s NetworkPolicy %s\n", p.Text(command.Green, "+"), name)
	}
	for _, name := range d.Changed {
		fmt.Fprintf(out, "%s NetworkPolicy %s\n", p.Text(command.Yellow, "~"), name)
	}
	for _, name := range d.Removed {
		fmt.Fprintf(out, "%s NetworkPolicy %s\n", p.Text(command.Red, "-"), name)
	}
	writePairs(out, p, d.Pairs)
	if len(d.Pairs) == 0 {
		fmt.Fprintln(out, "\nno pair of workloads gains or loses a port")
	}
	for _, w := range d.New {
		fmt.Fprintf(out, "\n%s %s is new: not compared (matrix shows what it will reach)\n", w.Kind, w)
	}
	for _, w := range d.Gone {
		fmt.Fprintf(out, "\n%s %s is gone: not compared\n", w.Kind, w)
	}
}

func writePairs(out io.Writer, p command.Paint, pairs []model.Pair) {
	for _, side := range []struct {
		head, sgr, sign string
		of              func(model.Pair) model.PortSet
	}{
		{"become reachable", command.Green, "+", func(p model.Pair) model.PortSet { return p.Gained }},
		{"are not reachable any more", command.Red, "-", func(p model.Pair) model.PortSet { return p.Lost }},
	} {
		t := &command.Table{Paint: p}
		t.Head("", "FROM", "TO", "PORTS")
		n := 0
		for _, pair := range pairs {
			ports := side.of(pair)
			if ports.Empty() {
				continue
			}
			n++
			text := strings.TrimSpace(ports.String())
			if pair.Some {
				text += " (some pods)"
			}
			t.Add(command.Cell{SGR: side.sgr, Text: side.sign}, command.Cell{Text: pair.From.String()}, command.Cell{Text: pair.To.String()}, command.Cell{SGR: side.sgr, Text: text})
		}
		if n > 0 {
			fmt.Fprintf(out, "\n%s\n", p.Text(command.Bold, "Ports that "+side.head))
			t.Write(out)
		}
	}
}
