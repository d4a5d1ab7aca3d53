package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	var d durations
	for i := 100; i >= 1; i-- {
		d = append(d, time.Duration(i))
	}
	for p, want := range map[float64]time.Duration{50: 50, 99: 99, 100: 100, 1: 1} {
		if got := d.percentile(p); got != want {
			t.Errorf("the %v. percentile of 1 to 100 is %d", p, got)
		}
	}
	if got := durations(nil).percentile(50); got != 0 {
		t.Errorf("of nothing: %v", got)
	}
}

func TestTheReportReplacesWhatIsBetweenTheMarks(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	beginMark, other := beginMarkOf("bench-fleet"), beginMarkOf("bench-scale")+"stays\n"+endMark
	page := "before\n" + other + beginMark + "old\n" + endMark + "after\n"
	if err := os.WriteFile(file, []byte(page), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := replaceIn(file, "bench-fleet", []byte("new\n")); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if want := "before\n" + other + beginMark + "new\n" + endMark + "after\n"; string(got) != want {
		t.Errorf("the page is %q", got)
	}
	if err := os.WriteFile(file, []byte("no marks\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if replaceIn(file, "bench-fleet", nil) == nil {
		t.Error("a page without marks was written")
	}
}
