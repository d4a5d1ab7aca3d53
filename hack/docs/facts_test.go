package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Pages name metrics, alerts, settings and messages. That these exist is checked here; what they mean is for readers.

// namedBy are what matches in all pages under docs/, with the page that names it last.
func namedBy(t *testing.T, pattern string) map[string]string {
	t.Helper()
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]string{}
	for _, p := range all {
		if strings.HasPrefix(p.path, "docs/") {
			for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(read(t, p.path), -1) {
				named[m[1]] = p.path
			}
		}
	}
	if len(named) == 0 {
		t.Errorf("no page has %s", pattern)
	}
	return named
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(repo, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// The table of docs/metrics.md is held against the code by hack/observe.
func TestMetricsAreInTheTable(t *testing.T) {
	table := read(t, "docs/metrics.md")
	for name, page := range namedBy(t, `\b(kidoban_(?:agent|controller)_[a-z_]+)`) {
		if !strings.Contains(table, "| `"+name) {
			t.Errorf("%s: there is no metric %s", page, name)
		}
	}
}

func TestAlertsExist(t *testing.T) {
	rules := read(t, "config/prometheus/rules.yaml")
	sections := namedBy(t, `(?m)^### (Kidoban[A-Za-z]+)$`)
	for name, page := range sections {
		if !strings.Contains(rules, "alert: "+name+"\n") {
			t.Errorf("%s: there is no alert %s", page, name)
		}
	}
	for _, m := range regexp.MustCompile(`alert: (\w+)`).FindAllStringSubmatch(rules, -1) {
		if sections[m[1]] != "docs/operations.md" || !strings.Contains(rules, "docs/operations.md#"+strings.ToLower(m[1])+"\n") {
			t.Errorf("docs/operations.md has no section for %s, or its runbook_url leads elsewhere", m[1])
		}
	}
}

// operating are the pages that quote settings, and what programs say.
var operating = []string{"docs/getting-started.md", "docs/operations.md", "docs/security.md", "docs/troubleshooting.md"}

// The tables of docs/configuration.md are held against the flags by cmd/agent and cmd/controller.
func TestSettingsExist(t *testing.T) {
	tables := read(t, "docs/configuration.md")
	for _, page := range operating {
		for _, m := range regexp.MustCompile("`([A-Z]+(?:_[A-Z]+)*)=[^`]*`").FindAllStringSubmatch(read(t, page), -1) {
			if !strings.Contains(tables, "| `"+m[1]+"` |") {
				t.Errorf("%s: there is no setting %s", page, m[1])
			}
		}
	}
}

// TestConfigMapsExist looks for each ConfigMap that pages name among those that kustomizations generate, and those of certificates.
func TestConfigMapsExist(t *testing.T) {
	var generated strings.Builder
	configMap := regexp.MustCompile(`(?m)^kind: ConfigMap\nmetadata:\n  name: (\S+)$`)
	for _, file := range []string{"config/controller/certificates.yaml", "config/components/observer/certificates.yaml"} {
		for _, m := range configMap.FindAllStringSubmatch(read(t, file), -1) {
			generated.WriteString("- name: " + m[1] + "\n")
		}
	}
	for _, dir := range []string{"agent", "controller", "prometheus"} {
		generated.WriteString(read(t, "config/"+dir+"/kustomization.yaml"))
	}
	for name, page := range namedBy(t, "ConfigMaps?[, ]+`([a-z-]+)`") {
		if !strings.Contains(generated.String(), "- name: "+name+"\n") {
			t.Errorf("%s: there is no ConfigMap %s", page, name)
		}
	}
}

// TestPathsExist looks for each path of the repository that pages name: code that begins with one of its directories. * stands for any
// name.
func TestPathsExist(t *testing.T) {
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:api|cmd|config|docs|e2e|examples|hack|internal|\\.github|\\.ci)/[\\w.*/-]*)`")
	n := 0
	for _, p := range all {
		for _, m := range named.FindAllStringSubmatch(read(t, p.path), -1) {
			n++
			if found, err := filepath.Glob(filepath.Join(repo, m[1])); err != nil || len(found) == 0 {
				t.Errorf("%s: there is no %s", p.path, m[1])
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d paths were found", n)
	}
}

// TestMessagesAreInTheCode looks for each message that pages quote. A message is code of four
// words or more that begins with no command; … stands for what differs, and its parts are looked for one by one.
func TestMessagesAreInTheCode(t *testing.T) {
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "cmd/*.go", "internal/*.go")
	list.Dir = repo
	files, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for path := range strings.SplitSeq(strings.Trim(string(files), "\x00"), "\x00") {
		if b, err := os.ReadFile(filepath.Join(repo, path)); err == nil && !strings.HasSuffix(path, "_test.go") {
			code.Write(b)
		}
	}
	// Strings are put together over lines, and have verbs where pages have values.
	source := regexp.MustCompile(`" \+\s*"`).ReplaceAllString(code.String(), "")
	source = strings.ReplaceAll(source, `\"`, `"`)
	n := 0
	for _, page := range operating {
		for _, m := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(read(t, page), -1) {
			words := strings.Fields(m[1])
			if len(words) < 4 || regexp.MustCompile(`^(kubectl|make|mount|ip|docker|cosign|BPF map [a-z]+ is full at [0-9])`).MatchString(m[1]) {
				continue
			}
			n++
			for part := range strings.SplitSeq(m[1], "…") {
				part = strings.Trim(part, " :()")
				if !strings.Contains(source, part) {
					t.Errorf("%s: nothing says %q", page, part)
				}
			}
		}
	}
	if n < 15 {
		t.Errorf("only %d messages were found", n)
	}
}
