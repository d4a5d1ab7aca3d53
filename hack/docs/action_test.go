package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestActionsComment runs the script of action.yaml on a pull request that takes a policy away, and on one with a mistake.
func TestActionsComment(t *testing.T) {
	plugin := filepath.Join(t.TempDir(), "kubectl-kidoban")
	build := exec.Command("go", "build", "-o", plugin, "./cmd/kubectl-kidoban")
	build.Dir = repo
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	comment := func(t *testing.T, old, changed string) (string, int) {
		t.Helper()
		var exit *exec.ExitError
		out, err := exec.Command(filepath.Join(repo, "hack", "action", "comment.sh"), plugin, old, changed, "--pod-cidr=10.0.0.0/8").Output()
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		if err == nil {
			return string(out), 0
		}
		return string(out), exit.ExitCode()
	}
	holds := func(t *testing.T, text string, code, wantCode int, words ...string) {
		t.Helper()
		if code != wantCode {
			t.Errorf("exit code %d, want %d", code, wantCode)
		}
		for _, word := range append(words, "<!-- kidoban -->\n", "**Likely mistakes**") {
			if !strings.Contains(text, word) {
				t.Errorf("the comment lacks %q:\n%s", word, text)
			}
		}
		if fences := strings.Count(text, "\n```\n"); fences%2 != 0 {
			t.Errorf("%d fences:\n%s", fences, text)
		}
	}
	old, changed := manifests(t), manifests(t)
	policies := filepath.Join(changed, "policies", "kustomization.yaml")
	replace(t, policies, "- database.yaml\n", "")
	text, code := comment(t, old, changed)
	holds(t, text, code, 0, "**What this pull request changes**", "- NetworkPolicy shop/database", "shop/backend")

	text, code = comment(t, filepath.Join(old, "none"), changed)
	holds(t, text, code, 0, "no manifests in the base branch")

	replace(t, filepath.Join(changed, "policies", "backend.yaml"), "app.kubernetes.io/name: frontend", "app.kubernetes.io/name: ''frontend")
	text, code = comment(t, old, changed)
	holds(t, text, code, 2)

	changed = manifests(t)
	replace(t, filepath.Join(changed, "policies", "kustomization.yaml"), "- database.yaml\n", "- mistake.yaml\n")
	mistake := "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mistake}\nspec: {podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}\n"
	if err := os.WriteFile(filepath.Join(changed, "policies", "mistake.yaml"), []byte(mistake), 0o644); err != nil {
		t.Fatal(err)
	}
	text, code = comment(t, old, changed)
	holds(t, text, code, 1, "[ignored-rules]")
}

// manifests is a directory with the shop's workloads and policies, as one kustomization.
func manifests(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(repo, "examples", "shop"))); err != nil {
		t.Fatal(err)
	}
	replace(t, filepath.Join(dir, "kustomization.yaml"), "resources:\n", "resources:\n- policies\n")
	return dir
}

// replace changes a text of a file that must be there.
func replace(t *testing.T, file, old, changed string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		t.Fatalf("%s has no %q", file, old)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, changed, 1)), 0o644); err != nil {
		t.Fatal(err)
	}
}
