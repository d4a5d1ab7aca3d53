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
	var skip, namespaces []string
	var failOn string
	var about strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&about, "\n  %-22s %s", c.name, c.about)
	}
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Find likely mistakes in NetworkPolicies and suggest fixes",
		Long: `Find likely mistakes in NetworkPolicies and suggest fixes, in the live cluster or in manifests. Checks that compare policies with pods need
the pods: give the workloads' manifests too.

Checks:` + about.String() + `

The exit code is 1 when there is a finding of the severity that --fail-on gives, or of a higher one.`,
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
	cmd.Flags().StringSliceVarP(&namespaces, "namespace", "n", nil, "Report findings of this namespace only; may be repeated. Default: all.")
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
		if len(namespaces) > 0 {
			*env.Config.Namespace = namespaces[0] // of manifests that do not give theirs
		}
		cluster, err := env.Unchecked(cmd.Context(), source, source.Files)
		if err != nil {
			return err
		}
		for _, name := range namespaces {
			if cluster.Namespace(name) == nil {
				return fmt.Errorf("-n %s: there is no such namespace", name)
			}
		}
		report := &Report{Findings: Run(cluster, Options{Namespaces: namespaces, Skip: skip}), Notes: cluster.Notes}
		for i := range cluster.Policies {
			if len(namespaces) == 0 || slices.Contains(namespaces, cluster.Policies[i].Namespace) {
				report.Policies++
			}
		}
		err = output.Print(env.Out, report, func(out io.Writer) { report.write(out, env.Paint()) })
		if err != nil {
			return err
		}
		return command.Yes(!slices.ContainsFunc(report.Findings, func(f Finding) bool { return slices.Index(severities, f.Severity) <= limit }))
	}
	return cmd
}

// Report is the result of lint.
type Report struct {
	Findings []Finding `json:"findings"`
	// Policies is the number of NetworkPolicies that were checked.
	Policies int `json:"policies"`
	// Notes are about the input, such as policies of other engines, which are not checked.
	Notes []string `json:"notes,omitempty"`
}

func (r *Report) write(out io.Writer, p command.Paint) {
	colours := map[Severity]string{Error: command.Red, Warning: command.Yellow, Info: command.Dim}
	count := map[Severity]int{}
	for _, f := range r.Findings {
		count[f.Severity]++
		where := f.Object
		if f.Path != "" {
			where += ", " + f.Path
		}
		fmt.Fprintf(out, "%s  %s  [%s]\n  %s\n  %s %s\n\n", p.Text(colours[f.Severity], string(f.Severity)), p.Text(command.Bold, where), f.Check, f.Message, p.Text(command.Green, "fix:"), f.Fix)
	}
	fmt.Fprintf(out, "%d policies: %d errors, %d warnings, %d notes\n", r.Policies, count[Error], count[Warning], count[Info])
}
