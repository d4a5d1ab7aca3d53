package flowlog

import (
	"compress/gzip"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func deliver(t *testing.T, s Sink, text string) {
	t.Helper()
	if _, err := s.deliver(context.Background(), []line{{time: at, text: []byte(text)}}); err != nil {
		t.Fatal(err)
	}
}

// putAway are the files that were put away and compressed; none while one is being compressed.
func putAway(t *testing.T, path string) (compressed []string) {
	t.Helper()
	found, err := filepath.Glob(strings.TrimSuffix(path, ".log") + "-*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		if !strings.HasSuffix(name, ".log.gz") {
			return nil
		}
		compressed = append(compressed, name)
	}
	return compressed
}

func TestAFileIsPutAwayByItsSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "flow.log")
	s := File(FileOptions{Path: path, MaxMegabytes: 1, MaxBackups: 2})
	defer func() { _ = s.close() }()
	big := strings.Repeat("x", 700_000) + "\n"
	for range 5 {
		deliver(t, s, big)
	}
	eventually(t, "two files that are put away, and no more", func() bool { return len(putAway(t, path)) == 2 })
	for _, name := range putAway(t, path) {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(z); err != nil || string(b) != big {
			t.Errorf("%s: %d bytes, %v", name, len(b), err)
		}
	}
}

func TestAFileIsPutAwayByItsAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flow.log")
	s := File(FileOptions{Path: path, MaxMegabytes: 1, MaxAge: time.Hour}).(*toFile)
	defer func() { _ = s.close() }()
	deliver(t, s, "yesterday\n")
	s.begun = s.begun.Add(-2 * time.Hour)
	deliver(t, s, "today\n")
	eventually(t, "a file that is put away", func() bool { return len(putAway(t, path)) == 1 })
	if b, err := os.ReadFile(path); err != nil || string(b) != "today\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestAFileThatSomebodyTookAwayIsMadeAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "flow.log")
	s := File(FileOptions{Path: path, MaxMegabytes: 1})
	defer func() { _ = s.close() }()
	deliver(t, s, "one\n")
	if err := os.RemoveAll(filepath.Dir(path)); err != nil {
		t.Fatal(err)
	}
	deliver(t, s, "two\n")
	if b, err := os.ReadFile(path); err != nil || string(b) != "two\n" {
		t.Errorf("%q, %v", b, err)
	}
}

func TestLinesWaitForAFileThatCannotBeWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "sub")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file where a directory should be
		t.Fatal(err)
	}
	path := filepath.Join(dir, "flow.log")
	q := ship(t, File(FileOptions{Path: path, MaxMegabytes: 1}))
	q.offer(text(1))
	eventually(t, "failures", func() bool { return testutil.ToFloat64(q.errors) >= 3 })
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the line", func() bool {
		b, err := os.ReadFile(path)
		return err == nil && string(b) == "line 1\n"
	})
}
