package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

const (
	beginMark = "<!-- make test-kernels writes from here … -->\n"
	endMark   = "<!-- … to here -->\n"
	heading   = "| Linux | Debian's release | tests passed | failed | took | date |\n|---|---|---:|---:|---:|---|\n"
)

// updatePage puts a run's row into a page, in the place of the row of the same version of Linux.
func updatePage(file, release string, r *result, part bool, took time.Duration) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	page, err := update(string(old), release, cells(r, part, took, time.Now()))
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(page), 0o644)
}

// cells of a row behind the release.
func cells(r *result, part bool, took time.Duration, now time.Time) string {
	passed := fmt.Sprint(len(r.passed))
	if part {
		passed += " (a part)"
	}
	return fmt.Sprintf("%s | %d | %v | %s |\n", passed, len(r.failed), took.Round(time.Second), now.UTC().Format(time.DateOnly))
}

func update(page, release, results string) (string, error) {
	before, rest, ok := strings.Cut(page, beginMark)
	between, after, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", errors.New("the marks of the table are gone")
	}
	key := fmt.Sprintf("| %s |", version(release))
	rows := []string{fmt.Sprintf("%s %s | %s", key, release, results)}
	for line := range strings.Lines(strings.TrimPrefix(between, heading)) {
		if strings.HasPrefix(line, "|") && !strings.HasPrefix(line, key) {
			rows = append(rows, line)
		}
	}
	slices.SortFunc(rows, func(a, b string) int { return slices.Compare(numbers(a), numbers(b)) })
	return before + beginMark + heading + strings.Join(rows, "") + endMark + after, nil
}

// version of a release is what people call it: 6.12 for 6.12.107+deb13-cloud-amd64, and with the architecture where it is another.
func version(release string) string {
	n := numbers(release)
	v := fmt.Sprintf("%d.%d", n[0], n[1])
	if _, arch, _ := strings.Cut(release, "-cloud-"); arch != "amd64" {
		v += ", " + arch
	}
	return v
}
