package main

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/modfile"
)

func TestCacheKey(t *testing.T) {
	const gomod = "module example.org/env\n\nrequire example.org/tool/v2 v2.4.2 // indirect\n"
	files := map[string]string{
		"env/go.mod": gomod, "env/go.sum": "sums", "env/cmd/main.go": "package main", "extra/main.go": "package main",
	}
	key := func(t *testing.T, change map[string]string) string {
		t.Helper()
		hack := t.TempDir()
		for _, set := range []map[string]string{files, change} {
			for name, content := range set {
				if err := writeFile(filepath.Join(hack, name), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		k, err := cacheKey(hack, "example.org/tool/v2", []string{"env", "extra"})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	original := key(t, nil)
	if !strings.HasPrefix(original, "tool-v2.4.2-") {
		t.Errorf("key %q does not begin with the name and the version", original)
	}
	same := map[string]map[string]string{
		"another clone": nil,
		"a test":        {"env/cmd/main_test.go": "package main"},
		"elsewhere":     {"other/main.go": "package main"},
	}
	for name, change := range same {
		if got := key(t, change); got != original {
			t.Errorf("%s: key %q, want %q", name, got, original)
		}
	}
	other := map[string]map[string]string{
		"go.sum":             {"env/go.sum": "other sums"},
		"a source":           {"env/cmd/main.go": "package other"},
		"a further source":   {"extra/more.go": "package main"},
		"a source's place":   {"extra/main.go": "", "env/main.go": "package main"},
		"the go.mod's tools": {"env/go.mod": gomod + "\ntool example.org/tool/v2\n"},
	}
	for name, change := range other {
		if got := key(t, change); got == original {
			t.Errorf("%s changes nothing", name)
		}
	}
}

func TestRequiredVersion(t *testing.T) {
	gomod := filepath.Join(t.TempDir(), "go.mod")
	if err := os.WriteFile(gomod, []byte("module m\n\nrequire example.org/a v1.2.3\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if v, err := requiredVersion(gomod, "example.org/a"); err != nil || v != "v1.2.3" {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := requiredVersion(gomod, "example.org/b"); err == nil || !strings.Contains(err.Error(), "does not require") {
		t.Errorf("a module that is not required: %v", err)
	}
}

// The sets name modules and directories of this repo: a key fails when one is not there.
func TestSetsHaveKeys(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	hack, err := findHack(wd)
	if err != nil {
		t.Fatal(err)
	}
	for prefix, set := range map[string]binarySet{"kubernetes-v1.": controlPlaneSet, "containerd-v2.": nodeSet, "e2e-kubernetes-v1.": suiteSet} {
		key, err := cacheKey(hack, set.module, set.dirs)
		if err != nil || !strings.HasPrefix(set.prefix+key, prefix) {
			t.Errorf("%s: %q, %v", set.title, key, err)
		}
	}
}

// The suite and what it tests are one version, of Kubernetes and of each of its staging modules.
func TestSuiteFitsCluster(t *testing.T) {
	replaced := func(file string) map[string]string {
		b := readFile(t, file)
		f, err := modfile.Parse(file, b, nil)
		if err != nil {
			t.Fatal(err)
		}
		versions := map[string]string{}
		for _, r := range f.Replace {
			versions[r.Old.Path] = r.New.Version
		}
		for _, r := range f.Require {
			if r.Mod.Path == "k8s.io/kubernetes" {
				versions[r.Mod.Path] = r.Mod.Version
			}
		}
		return versions
	}
	if cluster, suite := replaced("../testenv/go.mod"), replaced("../e2eenv/go.mod"); !maps.Equal(cluster, suite) {
		t.Errorf("hack/testenv has %v, hack/e2eenv %v", cluster, suite)
	}
}

func TestFindHack(t *testing.T) {
	root := t.TempDir()
	if _, err := findHack(root); err == nil {
		t.Error("found a clone where there is none")
	}
	if err := writeFile(filepath.Join(root, "hack/testenv/go.mod"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	deep := filepath.Join(root, "internal/policy")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	if got, err := findHack(deep); err != nil || got != filepath.Join(root, "hack") {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBuildProgress(t *testing.T) {
	p := &buildProgress{}
	for _, chunk := range []string{
		"go: downloading example.org/a v1.0.0\nexample.org", "/a\nexample.org/b\n# example.org/c\nc.go:1:1: syntax error\nexam",
	} {
		if n, err := p.Write([]byte(chunk)); err != nil || n != len(chunk) {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	if p.packages != 2 || p.last != "compiling example.org/b" {
		t.Errorf("%d packages, last %q", p.packages, p.last)
	}
	if got, want := p.messages(), "# example.org/c\nc.go:1:1: syntax error"; got != want {
		t.Errorf("messages %q, want %q", got, want)
	}
}
