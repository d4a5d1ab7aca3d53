package manifests

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// TestDependabotKnowsEveryModule compares its directories with the files that it would update.
func TestDependabotKnowsEveryModule(t *testing.T) {
	var config struct {
		Updates []struct {
			Ecosystem   string `json:"package-ecosystem"`
			Directory   string
			Directories []string
		}
	}
	if err := yaml.Unmarshal(read(t, filepath.Join(repo, ".github", "dependabot.yml")), &config); err != nil {
		t.Fatal(err)
	}
	have := map[string][]string{}
	for _, u := range config.Updates {
		have[u.Ecosystem] = append(have[u.Ecosystem], u.Directories...)
		if u.Directory != "" {
			have[u.Ecosystem] = append(have[u.Ecosystem], u.Directory)
		}
	}
	for ecosystem, want := range map[string][]string{
		"gomod":          directoriesOf(t, "go.mod"),
		"npm":            directoriesOf(t, "package.json"),
		"github-actions": {"/"},
	} {
		if got := slices.Sorted(slices.Values(have[ecosystem])); !slices.Equal(got, want) {
			t.Errorf("%s: directories %q, want %q", ecosystem, got, want)
		}
		delete(have, ecosystem)
	}
	for ecosystem := range have {
		t.Errorf("no test covers the ecosystem %s", ecosystem)
	}
}

// directoriesOf returns the directories that contain a file of this name, as Dependabot names them.
func directoriesOf(t *testing.T, name string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(repo, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", "node_modules", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if d.Name() == name {
			dir, err := filepath.Rel(repo, filepath.Dir(path))
			out = append(out, "/"+strings.TrimPrefix(filepath.ToSlash(dir), "."))
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// TestIssueForms looks for what GitHub rejects a form for.
func TestIssueForms(t *testing.T) {
	for _, file := range glob(t, ".github/ISSUE_TEMPLATE/*.yml") {
		if filepath.Base(file) == "config.yml" {
			continue
		}
		var form struct {
			Name, Description string
			Labels            []string
			Body              []struct {
				Type, ID    string
				Attributes  struct{ Label, Value, Description, Render string }
				Validations struct{ Required bool }
			}
		}
		if err := yaml.UnmarshalStrict(read(t, file), &form); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if form.Name == "" || form.Description == "" || len(form.Body) == 0 {
			t.Errorf("%s: a form needs a name, a description and a body", file)
		}
		ids := map[string]bool{}
		for _, field := range form.Body {
			if field.Type == "markdown" {
				want(t, file+": text", field.Attributes.Value != "", true)
				continue
			}
			if field.ID == "" || ids[field.ID] || field.Attributes.Label == "" {
				t.Errorf("%s: field %q needs an id of its own and a label", file, field.ID)
			}
			ids[field.ID] = true
		}
	}
}

// TestThereIsNoWorkspace keeps -modfile working, which the Makefile needs for its tools: Go rejects it in workspace mode.
func TestThereIsNoWorkspace(t *testing.T) {
	if _, err := os.Stat(filepath.Join(repo, "go.work")); err == nil {
		t.Error("go.work exists; docs/decisions says why it must not")
	}
}
