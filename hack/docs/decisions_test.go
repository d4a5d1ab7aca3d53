package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDecisionsHaveTheSameForm looks for the headings of each record, and for its line in the index.
func TestDecisionsHaveTheSameForm(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repo, "docs", "decisions", "[0-9]*.md"))
	if err != nil || len(files) < 10 {
		t.Fatal(files, err)
	}
	index := read(t, "docs/decisions/README.md")
	form := regexp.MustCompile(`(?s)\A# (\d+)\. [^\n]+\n\n(\d+ \w+ \d{4}) · [^\n]+\n\n## Context\n.*\n## Options\n.*\n## Decision\n.*\n## Consequence\n`)
	for _, file := range files {
		name := filepath.Base(file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		found := form.FindStringSubmatch(string(text))
		if found == nil {
			t.Errorf("%s: a record has a number, a date, context, options, decision and consequence", name)
			continue
		}
		if number, _, _ := strings.Cut(strings.TrimLeft(name, "0"), "-"); number != found[1] {
			t.Errorf("%s: its number is %s", name, found[1])
		}
		if !strings.Contains(index, "("+name+") | "+found[2]+" |") {
			t.Errorf("docs/decisions/README.md lacks %s of %s", name, found[2])
		}
	}
}
