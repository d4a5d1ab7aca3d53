package main

import (
	"bufio"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const repo = "../.."

func TestLinksLeadSomewhere(t *testing.T) {
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Errorf("only %d pages were found", len(all))
	}
	for _, broken := range brokenLinks(repo, all) {
		t.Error(broken)
	}
}

// TestCommandsWithoutACluster runs what pages show and what needs neither a cluster nor root.
func TestCommandsWithoutACluster(t *testing.T) {
	bin := t.TempDir()
	build := exec.Command("go", "build", "-o", bin, "./cmd/kubectl-kidoban")
	build.Dir = repo
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	kubectl := "#!/bin/sh\n" + `test "$1" = kidoban || { echo "kubectl $1 needs a cluster" >&2; exit 1; }` + "\nshift\nexec kubectl-kidoban \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "kubectl"), []byte(kubectl), 0o755); err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG=/dev/null", "HOME="+t.TempDir())
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	if err := (&runner{out: t.Output(), root: repo, kind: offline, env: env}).runAll(ctx); err != nil {
		t.Error(err)
	}
}

func TestThereAreCommandsForACluster(t *testing.T) {
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{onCluster, withObserver} {
		if !slices.ContainsFunc(all, func(p *page) bool {
			return slices.ContainsFunc(p.blocks, func(b block) bool { return b.kind == kind })
		}) {
			t.Errorf("no page has one of the kind %s", kind)
		}
	}
}

func TestBrokenLinksAreFound(t *testing.T) {
	root := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("there.md", "# A `map` is full, or: what (now)?\n\n## Twice\n\n## Twice\n\n## 木戸\n")
	write("picture.svg", "")
	for destination, want := range map[string]string{
		"there.md":                             "",
		"./there.md#a-map-is-full-or-what-now": "",
		"there.md#twice-1":                     "",
		"there.md#木戸":                          "",
		"#here":                                "",
		"picture.svg":                          "",
		".":                                    "",
		"https://example.com/nowhere#at-all":   "",
		"mailto:nobody@example.com":            "",
		"missing.md":                           "no such file",
		"#elsewhere":                           "no such heading",
		"there.md#twice-2":                     "no such heading",
		"../" + filepath.Base(root) + "/there.md": "out of the repository",
		"/there.md": "out of the repository",
	} {
		for form, text := range map[string]string{
			"plain":    "# Here\n\nSee [it](" + destination + ").\n",
			"in table": "# Here\n\n| a | b |\n|---|---|\n| [it](" + destination + ") | c |\n",
			"by name":  "# Here\n\nSee [it].\n\n[it]: " + destination + "\n",
			"picture":  "# Here\n\n![it](" + destination + ")\n",
		} {
			write("page.md", text)
			all, err := pages(root)
			if err != nil {
				t.Fatal(err)
			}
			broken := strings.Join(brokenLinks(root, all), "\n")
			if (want == "") != (broken == "") || !strings.Contains(broken, want) {
				t.Errorf("%s, %s: %q, want %q", destination, form, broken, want)
			}
		}
	}
}

func TestScriptsAreHeldToWhatPagesSay(t *testing.T) {
	for _, tc := range []struct{ name, page, want string }{
		{"as it says", "```sh offline\nprintf 'a   b\\nc\\n'\n```\n\n```text output\na b\nc\n```\n", ""},
		{"with gaps", "```sh offline\nseq 9; echo done\n```\n\n```text output\n1\n…\n8\n…\ndone\n```\n", ""},
		{"no output said", "```sh offline\necho anything\n```\n", ""},
		{"a status", "```sh offline exit=3\nexit 3\n```\n", ""},
		{"other output", "text\n\n```sh offline\necho a\n```\n\n```text output\nb\n```\n", "page.md:4: it prints something else"},
		{"more output", "```sh offline\nseq 2\n```\n\n```text output\n1\n```\n", "it prints something else"},
		{"a command that fails", "```sh offline\nfalse\ntrue\n```\n", "exit status 1, want 0"},
		{"one in a pipe", "```sh offline\nfalse | true\n```\n", "exit status 1, want 0"},
		{"one that should", "```sh offline exit=1\ntrue\n```\n", "exit status 0, want 1"},
		{"one that serves", "```sh offline until=http:// exit=3\ntrap 'exit 3' INT\necho http://there\nsleep 1000\n```\n\n```text output\nhttp://there\n```\n", ""},
		{"one that does not", "```sh offline until=http://\necho there\n```\n", `it ended without "http://"`},
		{"another kind", "```sh cluster\nfalse\n```\n", "no page has a block"},
		{"not to be run", "```sh\nfalse\n```\n", "no page has a block"},
		{"a misspelt kind", "```sh ofline\ntrue\n```\n", `"ofline" is none of`},
		{"output of nothing", "```sh\ntrue\n```\n\n```text output\na\n```\n", "follows no block that is run"},
		{"output far away", "```sh offline\ntrue\n```\n\nText.\n\n```text output\na\n```\n", "follows no block that is run"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			root := t.TempDir()
			if err := os.WriteFile(filepath.Join(root, "page.md"), []byte(tc.page), 0o644); err != nil {
				t.Fatal(err)
			}
			err := (&runner{out: t.Output(), root: root, kind: offline, env: os.Environ()}).runAll(t.Context())
			if (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestSectionsWaitForALine(t *testing.T) {
	root := t.TempDir()
	content := "# Page\n\n## One\n\n```sh offline\necho 1\n```\n\n```sh offline\necho 2\n```\n\n## Two\n\n```sh offline\necho 3\n```\n"
	if err := os.WriteFile(filepath.Join(root, "page.md"), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	for lines, want := range map[string][]string{
		"\n\n": {"section page.md: One", "1", "2", "section page.md: Two", "3"},
		"\n":   {"section page.md: One", "1", "2", "section page.md: Two"},
	} {
		var out strings.Builder
		r := runner{out: &out, root: root, kind: offline, show: true, env: os.Environ(), next: bufio.NewReader(strings.NewReader(lines))}
		err := r.runAll(t.Context())
		if isComplete := lines == "\n\n"; isComplete != (err == nil) {
			t.Errorf("%q: %v", lines, err)
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "s  page.md:") {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", lines, got, want)
		}
	}
}

func TestAScriptEndsInTime(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := block{script: "cat <(sleep 1000)\n"}.run(ctx, t.TempDir(), os.Environ())
	if err == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) {
		t.Error(err)
	}
}
