// Package cli is kubectl-kidoban: the root of its commands, each of which is a package.
package cli

import (
	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/diff"
	"github.com/kidoban/kidoban/internal/cli/events"
	"github.com/kidoban/kidoban/internal/cli/explain"
	"github.com/kidoban/kidoban/internal/cli/lab"
	"github.com/kidoban/kidoban/internal/cli/lint"
	"github.com/kidoban/kidoban/internal/cli/matrix"
	"github.com/kidoban/kidoban/internal/cli/migrate"
	"github.com/kidoban/kidoban/internal/cli/names"
	"github.com/kidoban/kidoban/internal/cli/recommend"
	"github.com/kidoban/kidoban/internal/cli/replay"
	"github.com/kidoban/kidoban/internal/cli/report"
	"github.com/kidoban/kidoban/internal/cli/status"
	"github.com/kidoban/kidoban/internal/cli/ui"
	"github.com/kidoban/kidoban/internal/version"
)

// New is the root command.
func New(env *command.Env) *cobra.Command {
	root := &cobra.Command{
		Use:   "kubectl-kidoban",
		Short: "Explain, compare and check NetworkPolicies, before and after they are applied",
		Long: `Explain, compare and check NetworkPolicies: which connections are allowed, which rule decides, the effect of a change, and the policies in force.

explain, matrix, diff, lint, lab and ui need no cluster: with -f they read manifests, such as the output of Helm and kustomize. replay and
recommend read recorded flows.

Exit codes: 0 the answer is yes, or there is nothing to report; 1 it is no: denied, changed, found, not in force; 2 there is no answer.`,
		Example: `  kubectl kidoban explain shop/frontend shop/backend:8000
  kubectl kidoban matrix -n shop
  kubectl kidoban diff -f new/
  kubectl kidoban lint -f policies/
  kubectl kidoban status`,
		Version:       version.String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Annotations:   map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl kidoban"},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	env.KeepPlain()
	root.SetIn(env.In)
	root.SetOut(env.Out)
	root.SetErr(env.ErrOut)
	env.Config.AddFlags(root.PersistentFlags())
	root.PersistentFlags().BoolVar(&env.ASCII, "ascii", false, "Print ASCII only: y for allowed, n for denied, ~ for not the same for all pods.")
	root.PersistentFlags().StringVar(&env.ObserverAccount, "observer-account", "", "ServiceAccount (NAMESPACE/NAME) with whose tokens the observer is asked; it shows what that account may read. Default: kidoban-viewer in kidoban's namespace.")
	_ = root.RegisterFlagCompletionFunc("namespace", env.CompleteNamespaces(&command.Source{}))
	setHelp(root)
	root.AddCommand(
		diff.New(env),
		events.New(env),
		explain.New(env),
		lab.New(env),
		lint.New(env),
		matrix.New(env),
		migrate.New(env),
		names.New(env),
		optionsCommand(env, root),
		recommend.New(env),
		replay.New(env),
		report.New(env),
		status.New(env),
		ui.New(env),
		versionCommand(env),
		completionCommand(env, root),
	)
	root.CompletionOptions.DisableDefaultCmd = true
	return root
}
