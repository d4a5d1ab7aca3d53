package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// width is how many columns running text may have. Tables, code and headings may be wider.
const width = 110

// TestWords looks through the pages for the words of hack/words.txt, and for lines that are too wide. What commands and tests generate is
// left out, but for the texts of the commands, which are in docs/cli.
func TestWords(t *testing.T) {
	type habit struct {
		pattern *regexp.Regexp
		instead string
	}
	var habits []habit
	for line := range strings.Lines(read(t, "hack/words.txt")) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		pattern, instead, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Fatalf("hack/words.txt: %q has no tab", line)
		}
		habits = append(habits, habit{regexp.MustCompile(pattern), instead})
	}
	if len(habits) < 10 {
		t.Errorf("only %d words", len(habits))
	}
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if slices.Contains([]string{"docs/glossary.md", "docs/api.md", "docs/conformance.md"}, p.path) {
			continue // the one explains these words, the others are generated
		}
		code, generated := false, strings.HasPrefix(p.path, "docs/cli/")
		written := false // by a test's run
		help := false    // a block of a command's help, such as a list
		number := 0
		for line := range strings.Lines(read(t, p.path)) {
			line = strings.TrimSuffix(line, "\n")
			number++
			generated = generated && !strings.HasPrefix(line, "<!-- end of what is generated")
			if strings.HasPrefix(line, "<!--") && strings.Contains(line, " from here") {
				written = true
			} else if strings.HasPrefix(line, "<!-- … to here") {
				written = false
			}
			if strings.HasPrefix(strings.TrimSpace(line), "```") {
				code, help = !code, !code && generated && line == "```text"
			}
			for _, h := range habits {
				if found := h.pattern.FindString(line); found != "" && (!code || help) {
					t.Errorf("%s:%d: %q: write %s", p.path, number, found, h.instead)
				}
			}
			prose := !code && !generated && !written && line != "" && !strings.HasPrefix(line, "    ") && !strings.ContainsRune("#<", rune(line[0])) &&
				!strings.HasPrefix(strings.TrimSpace(line), "|")
			if n := utf8.RuneCountInString(line); prose && n > width && strings.Contains(strings.TrimSpace(line), " ") {
				t.Errorf("%s:%d: %d columns, want at most %d", p.path, number, n, width)
			}
		}
	}
}
