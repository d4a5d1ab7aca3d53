package manifests

import (
	"io"
	"regexp"
	"strings"
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

// Every action is named by a commit, with its version beside it: a tag can be moved to another one.
func TestActionsArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`)
	n := 0
	for _, file := range glob(t, ".github/workflows/*.yaml", "action.yaml") {
		for line := range strings.Lines(string(read(t, file))) {
			if _, action, ok := strings.Cut(strings.TrimSpace(line), "uses: "); ok {
				if n++; !pinned.MatchString(action) {
					t.Errorf("%s: %s", file, action)
				}
			}
		}
	}
	if n == 0 {
		t.Error("there are none")
	}
}
