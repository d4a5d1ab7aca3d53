package cli_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kidoban/kidoban/internal/cli"
)

// TestCompletion asks for names as a shell does.
func TestCompletion(t *testing.T) {
	files := []string{"-f", "../../examples/shop", "-f", "../../examples/shop/policies"}
	for _, tc := range []struct {
		args []string
		want []string
	}{
		{append([]string{"explain"}, append(files, "shop/")...), []string{"shop/backend", "shop/database", "shop/frontend"}},
		{append([]string{"explain"}, append(files, "shop/frontend", "shop/b")...), []string{"shop/backend"}},
		{append([]string{"matrix"}, append(files, "--to", "mon")...), []string{"monitoring/prometheus"}},
		{append([]string{"matrix"}, append(files, "-n", "")...), []string{"monitoring", "shop"}},
		{append([]string{"matrix"}, append(files, "--only", "")...), []string{"allowed", "denied"}},
		{append([]string{"lint"}, append(files, "-n", "")...), []string{"monitoring", "shop"}},
		{append([]string{"lab"}, append(files, "-n", "s")...), []string{"shop"}},
		{append([]string{"explain"}, append(files, "-n", "")...), []string{"monitoring", "shop"}},
		{append([]string{"diff"}, append(files, "-n", "m")...), []string{"monitoring"}},
		{[]string{"lint", "--skip", "dns"}, []string{"dns-forgotten\tpods whose egress is isolated and that may not ask DNS"}},
		{[]string{"lint", "--fail-on", ""}, []string{"error", "warning", "info", "none"}},
		{[]string{"events", "--verdict", ""}, []string{"ACCEPT", "DENY", "AUDIT-DENY", "AUDIT-ALLOW", "AUDIT"}},
	} {
		got := strings.Split(help(t, append([]string{"__complete"}, tc.args...)...), "\n")
		for _, want := range tc.want {
			if !slices.Contains(got, want) {
				t.Errorf("%q: %q, want %s", tc.args, got, want)
			}
		}
	}
}

// TestFlagsComplete wants names of the cluster, and the words that a flag takes, for each flag that has them.
func TestFlagsComplete(t *testing.T) {
	env, _ := testEnv()
	seen := map[string]bool{}
	var look func(cmd *cobra.Command)
	look = func(cmd *cobra.Command) {
		for _, name := range []string{"namespace", "policy", "pod", "output", "verdict", "only", "skip", "fail-on"} {
			if cmd.Flags().Lookup(name) == nil {
				continue
			}
			seen[name] = true
			if _, ok := cmd.GetFlagCompletionFunc(name); !ok {
				t.Errorf("%s --%s is not completed", cmd.CommandPath(), name)
			}
		}
		for _, sub := range cmd.Commands() {
			look(sub)
		}
	}
	look(cli.New(env))
	if len(seen) != 8 {
		t.Errorf("only %v", seen)
	}
}
