package cli_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/kidoban/kidoban/internal/cli"
)

// TestHelpFits looks at the help of each command: 100 columns, and no flags of kubeconfig, which `options` lists.
func TestHelpFits(t *testing.T) {
	env, _ := testEnv()
	paths := [][]string{nil}
	for _, c := range cli.New(env).Commands() {
		paths = append(paths, []string{c.Name()})
		for _, b := range below(c) {
			paths = append(paths, append([]string{c.Name()}, strings.Fields(strings.TrimPrefix(b.CommandPath(), c.CommandPath()))...))
		}
	}
	if len(paths) < 15 {
		t.Errorf("only %d commands", len(paths))
	}
	for _, path := range paths {
		text := help(t, append(path, "--help")...)
		checkWidth(t, path, text)
		if strings.Contains(text, "--as-group") || !strings.Contains(text, `kubectl kidoban options"`) {
			t.Errorf("%v: the flags of kubeconfig are not left to options:\n%s", path, text)
		}
	}
	options := help(t, "options")
	checkWidth(t, []string{"options"}, options)
	for _, flag := range []string{"--kubeconfig", "--namespace", "--ascii", "--observer-account"} {
		if !strings.Contains(options, flag) {
			t.Errorf("options lacks %s", flag)
		}
	}
}

func checkWidth(t *testing.T, path []string, text string) {
	t.Helper()
	_, examples, _ := strings.Cut(text, "\nExamples:\n")
	examples, _, _ = strings.Cut(examples, "\n\n")
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > 100 && !strings.Contains(examples, line) {
			t.Errorf("%v: %d columns: %s", path, n, line)
		}
	}
}

func help(t *testing.T, args ...string) string {
	t.Helper()
	env, out := testEnv()
	root := cli.New(env)
	root.SetArgs(args)
	if err := root.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// TestASCII looks for symbols that some terminals and screen readers do not have.
func TestASCII(t *testing.T) {
	for _, args := range [][]string{
		{"matrix", "-f", "../../examples/shop", "-f", "../../examples/shop/policies"},
		{"explain", "-f", "../../examples/shop", "-f", "../../examples/shop/policies", "shop/frontend", "shop/backend:8000"},
		{"diff", "--base", "../../examples/shop", "-f", "../../examples/shop/policies"},
	} {
		env, out := testEnv()
		root := cli.New(env)
		root.SetArgs(append(args, "--ascii"))
		_ = root.ExecuteContext(t.Context()) // its exit code is the answer's
		text := out.String()
		if text == "" {
			t.Errorf("%v prints nothing", args)
		}
		for _, r := range text {
			if r > 127 {
				t.Errorf("%v prints %q:\n%s", args, r, text)
				break
			}
		}
	}
}
