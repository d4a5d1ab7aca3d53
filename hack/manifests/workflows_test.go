package manifests

import (
	"io"
	"testing"

	"github.com/rhysd/actionlint"
)

// The workflows are valid: events, expressions, matrices, names of actions' inputs.
func TestWorkflows(t *testing.T) {
	linter, err := actionlint.NewLinter(io.Discard, &actionlint.LinterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	problems, err := linter.LintFiles(glob(t, ".github/workflows/*.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s:%d:%d: %s", p.Filepath, p.Line, p.Column, p.Message)
	}
}
