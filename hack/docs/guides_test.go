package main

import (
	"os/exec"
	"path"
	"regexp"
	"strings"
	"testing"
)

// TestGuidesListEveryFile looks for the example of each guide in docs/guides.md. A file that has it has to be named there, or a directory
// that it is in: so a guide leads to the same files for another one like it.
func TestGuidesListEveryFile(t *testing.T) {
	for heading, example := range map[string]string{
		"Add a CRD field":     `RuleIndexes|ruleIndexes`,
		"Add a denial reason": `REASON_SPOOFED|ReasonSpoofed|spoofed`,
		"Add a policy kind":   `ClusterPolicyEndpoint|clusterpolicyendpoints`,
	} {
		_, section, found := strings.Cut(read(t, "docs/guides.md"), "## "+heading+"\n")
		if !found {
			t.Fatalf("there is no guide %q", heading)
		}
		section, _, _ = strings.Cut(section, "\n## ")
		var named []string
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(section, -1) {
			named = append(named, m[1])
		}
		files := filesWith(t, example)
		if len(files) < 3 {
			t.Errorf("%s: the example is in %d files only", heading, len(files))
		}
		for _, file := range files {
			if !covered(file, named) {
				t.Errorf("%s: %s has the example and is not named", heading, file)
			}
		}
	}
}

// covered reports whether one of the names is a file or a directory that it is in.
func covered(file string, names []string) bool {
	for _, name := range names {
		if file == name || strings.HasPrefix(file, strings.TrimSuffix(name, "/")+"/") {
			return true
		}
	}
	return false
}

// filesWith are the files that contributors edit and that match: no tests, nothing generated, and of the pages those that list reasons.
func filesWith(t *testing.T, pattern string) []string {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
		"PROJECT", "api", "cmd", "config", "internal", "docs/flow-log.md", "docs/flow-log.schema.json", "docs/troubleshooting.md")
	list.Dir = repo
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	like := regexp.MustCompile(pattern)
	generated := regexp.MustCompile(`(_test\.go|_bpfel\.(go|o)|\.pb\.go|/zz_generated\..*)$|/testdata/`)
	var files []string
	for file := range strings.SplitSeq(strings.Trim(string(out), "\x00"), "\x00") {
		if !generated.MatchString(file) && path.Ext(file) != ".o" && like.MatchString(read(t, file)) {
			files = append(files, file)
		}
	}
	return files
}

// TestReasonsAreDocumented compares the reasons of the flow log with the table that explains them, and with the schema.
func TestReasonsAreDocumented(t *testing.T) {
	_, enum, _ := strings.Cut(read(t, "docs/flow-log.schema.json"), `"reason": {"enum": [`)
	enum, _, _ = strings.Cut(enum, "]")
	page := read(t, "docs/flow-log.md")
	n := 0
	for _, m := range regexp.MustCompile(`(?m)^\s+Reason\w+\s+= "([a-z-]+)"`).FindAllStringSubmatch(read(t, "internal/agentapi/event.go"), -1) {
		n++
		if !strings.Contains(enum, `"`+m[1]+`"`) {
			t.Errorf("docs/flow-log.schema.json lacks the reason %s", m[1])
		}
		if !strings.Contains(page, "| `"+m[1]+"` | ") {
			t.Errorf("docs/flow-log.md lacks the reason %s", m[1])
		}
	}
	if listed := strings.Count(enum, ","); n != listed+1 {
		t.Errorf("%d reasons are in the code, %d in the schema", n, listed+1)
	}
}
