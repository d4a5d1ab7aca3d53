package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// A summary of a run is what docs/compatibility.md is written from.
type summary struct {
	Kernel   string
	Date     string
	Packages []string
	Passed   int
	Failed   []string
	Skipped  []string
	Seconds  int
}

func (r *result) summary(release string, took time.Duration) summary {
	s := summary{
		Kernel: release, Date: time.Now().UTC().Format(time.DateOnly), Passed: len(r.passed), Failed: r.failed, Skipped: r.skipped,
		Seconds: int(took.Seconds()),
	}
	for _, e := range r.ended {
		s.Packages = append(s.Packages, e.Name)
	}
	return s
}

func (s summary) String() string {
	return fmt.Sprintf("==> Linux %s: %d passed, %d failed, %d skipped in %d s (%s)",
		s.Kernel, s.Passed, len(s.Failed), len(s.Skipped), s.Seconds, strings.Join(s.Packages, ", "))
}

func (s summary) write(dir string) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, s.Kernel+".json"), append(b, '\n'), 0o644)
}
