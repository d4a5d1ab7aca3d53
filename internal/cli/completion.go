package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// completionCommand takes the place of cobra's, whose script completes the name of the binary: kubectl completes plugins through a
// separate program (kubectl_complete-kidoban).
func completionCommand(env *command.Env, root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish|kubectl",
		Short: "Print a completion script for a shell",
		Long: `Print a script that completes commands and flags: those of kubectl-kidoban for a shell, or those of "kubectl kidoban" as the program
kubectl_complete-kidoban, which kubectl runs from the PATH.`,
		Example: `  # kubectl kidoban <TAB>, where kubectl's own completion is on
  kubectl kidoban completion kubectl | sudo tee /usr/local/bin/kubectl_complete-kidoban
  sudo chmod +x /usr/local/bin/kubectl_complete-kidoban

  # kubectl-kidoban <TAB>
  source <(kubectl-kidoban completion bash)`,
		ValidArgs: []string{"bash", "zsh", "fish", "kubectl"},
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(env.Out, true)
			case "zsh":
				return root.GenZshCompletion(env.Out)
			case "fish":
				return root.GenFishCompletion(env.Out, true)
			}
			_, err := fmt.Fprint(env.Out, "#!/bin/sh\nexec kubectl kidoban __complete \"$@\"\n")
			return err
		},
	}
}
