package lint

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var skip []string
	var failOn string
	var about strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&about, "\n  %-22s %s", c.name, c.about)
	}
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Find what policies say and nobody means, each with the fix",
		Long: `Find policies that the API server takes and that surprise, in the live cluster or in manifests. Checks that compare policies with pods need
the pods: give the workloads' manifests too.

Checks:` + about.String() + `

The exit code is 1 when something is found that is at least as grave as --fail-on says.`,
		Example: `  # The live cluster
  kubectl kidoban lint

  # In a pipeline: the chart as it would be applied
  helm template ./chart | kubectl kidoban lint -n shop -f -

  # Without one of the checks
  kubectl kidoban lint -f deploy/ --skip no-default-deny`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd)
	source := command.AddSource(cmd)
	cmd.Flags().StringSliceVar(&skip, "skip", nil, "Leave this check out; may be repeated.")
	cmd.Flags().StringVar(&failOn, "fail-on", "warning", "Exit with 1 from this severity on: error, warning, info, or none.")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		limit := slices.Index(severities, Severity(failOn))
		if limit < 0 && failOn != "none" {
			return fmt.Errorf("--fail-on %s: give error, warning, info or none", failOn)
		}
		for _, name := range skip {
			if !slices.ContainsFunc(checks, func(c check) bool { return c.name == name }) {
				return fmt.Errorf("--skip %s: there is no such check", name)
			}
		}
		cluster, err := env.Unchecked(cmd.Context(), source, source.Files)
		if err != nil {
			return err
		}
		findings := Run(cluster, skip)
		err = output.Print(env.Out, map[string]any{"findings": findings}, func(out io.Writer) { write(out, env.Paint(), findings, len(cluster.Policies)) })
		if err != nil {
			return err
		}
		return command.Yes(!slices.ContainsFunc(findings, func(f Finding) bool { return slices.Index(severities, f.Severity) <= limit }))
	}
	return cmd
}

func write(out io.Writer, p command.Paint, findings []Finding, policies int) {
	colours := map[Severity]string{Error: command.Red, Warning: command.Yellow, Info: command.Dim}
	count := map[Severity]int{}
	for _, f := range findings {
		count[f.Severity]++
		where := f.Object
		if f.Path != "" {
			where += ", " + f.Path
		}
		fmt.Fprintf(out, "%s  %s  [%s]\n  %s\n  %s %s\n\n", p.Text(colours[f.Severity], string(f.Severity)), p.Text(command.Bold, where), f.Check, f.Message, p.Text(command.Green, "fix:"), f.Fix)
	}
	fmt.Fprintf(out, "%d policies: %d errors, %d warnings, %d notes\n", policies, count[Error], count[Warning], count[Info])
}
