package manifests

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rhysd/actionlint"
	"sigs.k8s.io/yaml"
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

// TestEveryImageIsReleased compares the Dockerfile's images with those that the workflow pushes and that `make image` packs.
func TestEveryImageIsReleased(t *testing.T) {
	var targets, packed []string
	for _, m := range regexp.MustCompile(`(?m)^FROM image AS (\w+)$`).FindAllStringSubmatch(string(read(t, filepath.Join(repo, "Dockerfile"))), -1) {
		targets = append(targets, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^\t\$\(call pack,(\w+),`).FindAllStringSubmatch(string(read(t, filepath.Join(repo, "Makefile"))), -1) {
		packed = append(packed, m[1])
	}
	var workflow struct {
		Jobs struct {
			Images struct {
				Strategy struct {
					Matrix struct{ Image []string }
				}
			}
		}
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(repo, ".github", "workflows", "release.yaml")), &workflow); err != nil {
		t.Fatal(err)
	}
	pushed := workflow.Jobs.Images.Strategy.Matrix.Image
	for _, images := range [][]string{targets, packed, pushed} {
		slices.Sort(images)
	}
	if len(targets) == 0 || !slices.Equal(pushed, targets) || !slices.Equal(packed, targets) {
		t.Errorf("the Dockerfile has %v, the release workflow pushes %v, and make image packs %v", targets, pushed, packed)
	}
}

// TestAction looks for what GitHub rejects a composite action for, and for values of pull requests in scripts, where a shell would run them.
func TestAction(t *testing.T) {
	var action struct {
		Name, Description string
		Inputs            map[string]struct {
			Description string
			Required    bool
			Default     *string
		}
		Runs struct {
			Using string
			Steps []struct {
				ID, Uses, Run, Shell string
				Env                  map[string]string
			}
		}
	}
	text := read(t, filepath.Join(repo, "action.yaml"))
	if err := yaml.Unmarshal(text, &action); err != nil {
		t.Fatal(err)
	}
	want(t, "using", action.Runs.Using, "composite")
	for name, input := range action.Inputs {
		if input.Description == "" || input.Required == (input.Default != nil) {
			t.Errorf("input %s needs a description, and a default unless it is required", name)
		}
	}
	for _, m := range regexp.MustCompile(`inputs\.([\w-]+)`).FindAllStringSubmatch(string(text), -1) {
		if _, ok := action.Inputs[m[1]]; !ok {
			t.Errorf("there is no input %s", m[1])
		}
	}
	for _, step := range action.Runs.Steps {
		if (step.Run == "") == (step.Uses == "") || step.Run != "" && step.Shell == "" {
			t.Errorf("a step has a script with a shell, or uses an action: %+v", step)
		}
		if strings.Contains(step.Run, "${{") {
			t.Errorf("a script has an expression, which belongs into env: %s", step.Run)
		}
	}
	if _, err := os.Stat(filepath.Join(repo, "hack", "action", "comment.sh")); err != nil {
		t.Error(err)
	}
}
