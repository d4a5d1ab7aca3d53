package lint

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// New is the command.
func New(env *command.Env) *cobra.Command {
	var skip, namespaces []string
	var failOn string
	var listChecks bool
	var about strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&about, "\n  %-24s %s", c.name, c.about)
	}
	cmd := &cobra.Command{
		Use:   "lint",
		Short: "Find likely mistakes in policies and suggest fixes",
		Long: `Find likely mistakes in NetworkPolicies and ClusterNetworkPolicies and suggest fixes, in the live cluster or in manifests. Checks that compare policies with pods need
the pods: give the workloads' manifests too.

Checks:` + about.String() + `

The annotation ` + AnnotationIgnore + ` of a policy or a namespace leaves out the findings of the checks that it names, as in
"open-peer, dns-forgotten".

The exit code is 1 when there is a finding of the severity that --fail-on gives, or of a higher one.`,
		Example: `  # The live cluster
  kubectl kidoban lint

  # In a pipeline: the chart as it would be applied
  helm template ./chart | kubectl kidoban lint -n shop -f -

  # Without one of the checks
  kubectl kidoban lint -f deploy/ --skip no-default-deny

  # For the code scanning of a forge
  kubectl kidoban lint -f deploy/ -o sarif > lint.sarif`,
		Args: cobra.NoArgs,
	}
	output := command.AddOutput(cmd, command.Kinds{"LintReport": Report{}, "CheckList": CheckList{}}, "sarif", "junit")
	source := command.AddSource(cmd)
	cmd.Flags().StringSliceVarP(&namespaces, "namespace", "n", nil, "Report findings of this namespace only; may be repeated. Default: all.")
	cmd.Flags().StringSliceVar(&skip, "skip", nil, "Leave this check out; may be repeated.")
	cmd.Flags().StringVar(&failOn, "fail-on", "warning", "Exit with 1 from this severity on: error, warning, info, or none.")
	cmd.Flags().BoolVar(&listChecks, "list-checks", false, "Print the checks, and check nothing.")
	_ = cmd.RegisterFlagCompletionFunc("namespace", env.CompleteNamespaces(source))
	_ = cmd.RegisterFlagCompletionFunc("skip", completeChecks)
	_ = cmd.RegisterFlagCompletionFunc("fail-on", cobra.FixedCompletions([]cobra.Completion{string(Error), string(Warning), string(Info), "none"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := output.Check(); err != nil {
			return err
		}
		if listChecks {
			return printChecks(env, output)
		}
		limit := slices.Index(severities, Severity(failOn))
		if limit < 0 && failOn != "none" {
			return fmt.Errorf("--fail-on %s: give error, warning, info or none", failOn)
		}
		for _, name := range skip {
			if !has(checks, name) {
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
		report := &Report{Notes: cluster.Notes}
		report.Findings, report.Suppressed = Run(cluster, Options{Namespaces: namespaces, Skip: skip})
		for i := range cluster.Policies {
			if np := &cluster.Policies[i]; len(namespaces) == 0 || slices.Contains(namespaces, np.Namespace) {
				report.Policies++
				report.objects = append(report.objects, object(np))
			}
		}
		for i := range cluster.ClusterPolicies {
			if len(namespaces) == 0 {
				report.Policies++
				report.objects = append(report.objects, model.Describe(model.ClusterPolicyKind, &cluster.ClusterPolicies[i]))
			}
		}
		fails := func(f Finding) bool { return slices.Index(severities, f.Severity) <= limit }
		switch {
		case output.Is("sarif"):
			err = report.sarif(env.Out)
		case output.Is("junit"):
			err = report.junit(env.Out, fails)
		default:
			err = output.Print(env.Out, report, func(out io.Writer) { report.write(out, env.Paint()) })
		}
		if err != nil {
			return err
		}
		return command.Yes(!slices.ContainsFunc(report.Findings, fails))
	}
	return cmd
}

// completeChecks completes the names of checks, and shows what they are about.
func completeChecks(_ *cobra.Command, _ []string, begin string) (out []cobra.Completion, _ cobra.ShellCompDirective) {
	for _, c := range checks {
		if strings.HasPrefix(c.name, begin) {
			out = append(out, cobra.CompletionWithDesc(c.name, c.about))
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// Report is the result of lint.
type Report struct {
	Findings []Finding `json:"findings"`
	// Policies is the number of NetworkPolicies and ClusterNetworkPolicies that were checked.
	Policies int `json:"policies"`
	// Suppressed is the number of findings that annotations leave out.
	Suppressed int `json:"suppressed,omitempty"`
	// Notes are about the input, such as policies of other engines, which are not checked.
	Notes []string `json:"notes,omitempty"`

	objects []string // those policies
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
		if f.File != "" {
			where = fmt.Sprintf("%s:%d: %s", f.File, f.Line, where)
		}
		fmt.Fprintf(out, "%s  %s  [%s]\n  %s\n  %s %s\n\n", p.Text(colours[f.Severity], string(f.Severity)), p.Text(command.Bold, where), f.Check, f.Message, p.Text(command.Green, "fix:"), f.Fix)
	}
	fmt.Fprintf(out, "%s: %s, %s, %d info", counted(r.Policies, "policy", "policies"), counted(count[Error], "error", "errors"),
		counted(count[Warning], "warning", "warnings"), count[Info])
	if r.Suppressed > 0 {
		fmt.Fprintf(out, "; annotations leave out %s", counted(r.Suppressed, "finding", "findings"))
	}
	fmt.Fprintln(out)
}

// counted is a number with its noun.
func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// CheckList has a description of each check.
type CheckList struct {
	Checks []Description `json:"checks"`
}

// Description of a check.
type Description struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// Help is the page that describes it.
	Help string `json:"help"`
}

// printChecks lists the checks.
func printChecks(env *command.Env, output *command.Output) error {
	var list CheckList
	table := &command.Table{Paint: env.Paint()}
	table.Head("CHECK", "FINDS")
	for _, c := range checks {
		list.Checks = append(list.Checks, Description{c.name, c.about, c.help()})
		table.Add(command.Plain(c.name, c.about)...)
	}
	return output.Print(env.Out, list, table.Write)
}
