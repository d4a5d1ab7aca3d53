package main

import (
	"io/fs"
	"os"
	"path/filepath"
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
	habits := readHabits(t)
	all, err := pages(repo)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if slices.Contains([]string{"docs/glossary.md", "docs/api.md"}, p.path) {
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

// TestWordsInCode looks for these words in what programs print, in comments, and in manifests.
func TestWordsInCode(t *testing.T) {
	habits := readHabits(t)
	files := 0
	for _, dir := range []string{"api", "charts", "cmd", "config", "examples", "internal"} {
		err := filepath.WalkDir(filepath.Join(repo, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				if err == nil && (d.Name() == "testdata" || d.Name() == "node_modules" || d.Name() == "dist") {
					return filepath.SkipDir
				}
				return err
			}
			if ext := filepath.Ext(path); ext != ".go" && ext != ".yaml" && ext != ".txt" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			files++
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			number := 0
			for line := range strings.Lines(string(text)) {
				number++
				for _, h := range habits {
					if found := h.pattern.FindString(line); found != "" {
						t.Errorf("%s:%d: %q: write %s", path, number, found, h.instead)
					}
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 300 {
		t.Errorf("only %d files", files)
	}
}

// habit is a line of hack/words.txt.
type habit struct {
	pattern *regexp.Regexp
	instead string
}

func readHabits(t *testing.T) []habit {
	t.Helper()
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
	return habits
}
