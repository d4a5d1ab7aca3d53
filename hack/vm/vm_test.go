package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestNewest(t *testing.T) {
	releases := []string{
		".apt", ".tmp-6.12.999", "6.1.0-50-cloud-amd64", "6.1.0-47-cloud-amd64", "6.12.95+deb12-cloud-amd64", "6.12.107+deb13-cloud-amd64",
		"6.18.15+deb13-cloud-amd64",
	}
	for want, release := range map[string]string{
		"6.1":                        "6.1.0-50-cloud-amd64",
		"6.12":                       "6.12.107+deb13-cloud-amd64",
		"6.12.95":                    "6.12.95+deb12-cloud-amd64",
		"6.12.107+deb13-cloud-amd64": "6.12.107+deb13-cloud-amd64",
		"6":                          "6.18.15+deb13-cloud-amd64",
		"":                           "6.18.15+deb13-cloud-amd64",
		"6.6":                        "",
	} {
		if got := newest(releases, want); got != release {
			t.Errorf("%q: %q, want %q", want, got, release)
		}
	}
}

// Two clones test at the same time, and share what they download.
func TestDownloadsTakeTurns(t *testing.T) {
	s := store{dir: t.TempDir()}
	first, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.lock(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("while another downloads: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	second, err := s.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
}

func TestDebianMirror(t *testing.T) {
	for content, want := range map[string]string{
		"Types: deb\n# http://example.org/archive/debian/20250520\nURIs: http://mirror.example.org/debian\nSuites: bookworm\n":  "http://mirror.example.org/debian",
		"deb http://example.org/debian-security bookworm-security main\ndeb https://mirror.example.org/debian/ bookworm main\n": "https://mirror.example.org/debian",
		"deb [arch=amd64 signed-by=/k.gpg] http://mirror.example.org/debian bookworm main\n":                                    "http://mirror.example.org/debian",
		"deb http://example.org/ubuntu noble main\n":                                                                            "",
	} {
		etc := t.TempDir()
		if err := os.WriteFile(filepath.Join(etc, "sources.list"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		got, err := debianMirror(etc)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}

// The store holds kernels of several architectures.
func TestKernelsOfAnArchitecture(t *testing.T) {
	dir := t.TempDir()
	for _, release := range []string{"6.12.107+deb13-cloud-amd64", "6.12.95+deb13-cloud-arm64"} {
		if err := os.Mkdir(filepath.Join(dir, release), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"amd64": "6.12.107+deb13-cloud-amd64", "arm64": "6.12.95+deb13-cloud-arm64"} {
		arch, err := findArch(name)
		if err != nil {
			t.Fatal(err)
		}
		if k, err := (store{dir, arch}).find(t.Context(), "6.12"); err != nil || k.release != want {
			t.Errorf("%s: %q, %v", name, k.release, err)
		}
	}
	if _, err := findArch("riscv64"); err == nil {
		t.Error("no error for riscv64")
	}
}

func TestDependencies(t *testing.T) {
	const out = "nftables\n  Depends: libc6\n |Depends: <a>\n  Depends: libnftables1\nlibc6\n<a>\n    b\nlibnftables1\n  Depends: libc6\n"
	if got := strings.Join(dependencies(out), " "); got != "nftables libc6 libnftables1" {
		t.Errorf("%q", got)
	}
}

func TestPage(t *testing.T) {
	page := "# Title\n\n" + beginMark + endMark + "\nmore\n"
	for _, row := range [][2]string{
		{"6.12.95+deb12-cloud-amd64", "a |\n"}, {"7.3.4+deb13-cloud-amd64", "b |\n"}, {"6.6.1-cloud-amd64", "c |\n"}, {"6.12.107+deb13-cloud-amd64", "d |\n"},
		{"6.12.90+deb13-cloud-arm64", "e |\n"}, {"6.12.95+deb13-cloud-arm64", "f |\n"},
	} {
		var err error
		if page, err = update(page, row[0], row[1]); err != nil {
			t.Fatal(err)
		}
	}
	want := "# Title\n\n" + beginMark + heading + "| 6.6 | 6.6.1-cloud-amd64 | c |\n| 6.12 | 6.12.107+deb13-cloud-amd64 | d |\n| 6.12, arm64 | 6.12.95+deb13-cloud-arm64 | f |\n" +
		"| 7.3 | 7.3.4+deb13-cloud-amd64 | b |\n" + endMark + "\nmore\n"
	if page != want {
		t.Errorf("got\n%s\nwant\n%s", page, want)
	}
	if _, err := update("# Title\n", "6.1.0-cloud-amd64", ""); err == nil {
		t.Error("a page without marks")
	}
}

func TestCellsNameAPart(t *testing.T) {
	now := time.Date(2026, 11, 30, 23, 0, 0, 0, time.UTC)
	r := &result{passed: []string{"TestA", "TestB"}}
	for part, want := range map[bool]string{false: "2 | 0 | 1m2s | 2026-11-30 |\n", true: "2 (a part) | 0 | 1m2s | 2026-11-30 |\n"} {
		if got := cells(r, part, 62*time.Second, now); got != want {
			t.Errorf("part %t: %q, want %q", part, got, want)
		}
	}
}

func TestSoftNeeds(t *testing.T) {
	if got := strings.Join(softNeeds("pre: crypto-a b post: c pre: d"), " "); got != "crypto_a b d" {
		t.Errorf("%q", got)
	}
}

const console = "\x1b[2J=== RUN   TestA\r\n    --- FAIL: TestA/sub (0.00s)\r\n--- FAIL: TestA (0.01s)\r\n[ 1.0] kernel --- PASS: TestB (0.00s)\r\n" +
	"--- SKIP: TestC (0.00s)\r\nFAIL\r\n--- PASS: TestD (0.00s)"

func TestResultIsRead(t *testing.T) {
	var r result
	var out strings.Builder
	r.read(strings.NewReader(console), &out)
	if got := strings.Join(r.passed, " ") + "; " + strings.Join(r.failed, " ") + "; " + strings.Join(r.skipped, " "); got != "TestB TestD; TestA; TestC" {
		t.Error(got)
	}
	if !r.cameUp() {
		t.Error("no test began")
	}
	if strings.Contains(out.String(), "\r") || !strings.HasSuffix(out.String(), "TestD (0.00s)\n") {
		t.Errorf("passed on as %q", out.String())
	}
}

func TestAMachineThatDoesNotComeUp(t *testing.T) {
	var r result
	r.read(strings.NewReader("[ 2.7] Oops: int3: 0000 [#2]\r\n[ 2.7] Kernel panic - not syncing\r\n"), io.Discard)
	if r.cameUp() {
		t.Error("a test began")
	}
	if r.ended = []ended{{Name: "a"}}; !r.cameUp() {
		t.Error("a program ended before the machine came up")
	}
}

func TestResultsThatAreNotGood(t *testing.T) {
	good := ended{Name: "a"}
	for want, r := range map[string]result{
		"":                         {ended: []ended{good}, passed: []string{"TestA"}},
		"0 of 1 programs":          {passed: []string{"TestA"}},
		"ended with exit code 2":   {ended: []ended{{Name: "a", Code: 2}}, passed: []string{"TestA"}},
		"failed: TestA":            {ended: []ended{good}, failed: []string{"TestA"}},
		"skipped, which no test":   {ended: []ended{good}, passed: []string{"TestA"}, skipped: []string{"TestB"}},
		"no test passed, of which": {ended: []ended{good}},
	} {
		err := r.err(1)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", r, err)
		}
	}
}
