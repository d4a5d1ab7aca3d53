package cli_test

import (
	"testing"

	"github.com/kidoban/kidoban/internal/cli"
	"github.com/kidoban/kidoban/internal/version"
)

func TestVersion(t *testing.T) {
	for _, arg := range []string{"version", "--version"} {
		env, out := testEnv()
		root := cli.New(env)
		root.SetArgs([]string{arg})
		if err := root.ExecuteContext(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := out.String(); got != version.String()+"\n" {
			t.Errorf("%s: %q", arg, got)
		}
	}
}
