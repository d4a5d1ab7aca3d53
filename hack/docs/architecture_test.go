package main

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kidoban/kidoban/"

// pure are the packages that need no cluster, no kernel and no clock.
var pure = []string{"internal/policy", "internal/policy/reference", "internal/resolver", "internal/controller/plan", "internal/node", "internal/compiler"}

// imports returns the repository's packages, and what each imports outside of its tests.
func imports(t *testing.T, flags ...string) map[string][]string {
	t.Helper()
	list := exec.Command("go", append(append([]string{"list"}, flags...), "-f", `{{.ImportPath}} {{join .Imports " "}}`, "./api/...", "./internal/...")...)
	list.Dir = repo
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		words := strings.Fields(line)
		all[strings.TrimPrefix(words[0], module)] = words[1:]
	}
	return all
}

// TestImportsHoldToTheArchitecture compares the table of docs/architecture.md with the code. A row ends with what a package may import of
// ours.
func TestImportsHoldToTheArchitecture(t *testing.T) {
	_, section, _ := strings.Cut(read(t, "docs/architecture.md"), "## Where code belongs")
	code := regexp.MustCompile("`([^`]+)`")
	actual := imports(t)
	rows := 0
	for line := range strings.Lines(section) {
		cells := strings.Split(line, "|")
		if len(cells) < 5 || !strings.Contains(cells[1], "`") {
			continue
		}
		rows++
		name := code.FindStringSubmatch(cells[1])[1]
		if actual[name] == nil {
			t.Errorf("there is no package %s", name)
		}
		var may []string
		for _, m := range code.FindAllStringSubmatch(cells[3], -1) {
			may = append(may, m[1])
		}
		for _, path := range actual[name] {
			if ours, ok := strings.CutPrefix(path, module); ok && !slices.Contains(may, ours) {
				t.Errorf("%s imports %s, which docs/architecture.md does not allow", name, ours)
			}
		}
	}
	if rows < 10 {
		t.Errorf("only %d packages were found", rows)
	}
}

// TestPurePackages looks through all that they depend on, and for clocks in their own code.
func TestPurePackages(t *testing.T) {
	forbidden := regexp.MustCompile(`^(k8s\.io/client-go|sigs\.k8s\.io/controller-runtime|github\.com/cilium/ebpf|github\.com/vishvananda/netlink)(/|$)`)
	clock := regexp.MustCompile(`\btime\.(Now|Since|Until|After|AfterFunc|NewTimer|NewTicker|Tick|Sleep)\(`)
	all := imports(t, "-deps")
	for _, name := range pure {
		seen := map[string]bool{}
		var visit func(string)
		visit = func(path string) {
			if seen[path] {
				return
			}
			seen[path] = true
			if forbidden.MatchString(path) {
				t.Errorf("%s depends on %s", name, path)
				return
			}
			for _, next := range all[strings.TrimPrefix(path, module)] {
				visit(next)
			}
		}
		visit(module + name)
		if len(seen) < 5 {
			t.Errorf("%s: only %d dependencies were found", name, len(seen))
		}
		files, err := filepath.Glob(filepath.Join(repo, name, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatal(name, err)
		}
		for _, file := range files {
			if rel, _ := filepath.Rel(repo, file); !strings.HasSuffix(file, "_test.go") {
				if found := clock.FindString(read(t, rel)); found != "" {
					t.Errorf("%s: %s; time is an argument here", rel, strings.TrimSuffix(found, "("))
				}
			}
		}
	}
}
