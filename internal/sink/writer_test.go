package sink

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
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

func TestAFileThatSomebodyReplacedIsFollowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flow.log")
	s := File(FileOptions{Path: path, MaxMegabytes: 1})
	defer func() { _ = s.close() }()
	for i, text := range []string{"one\n", "two\n", "three\n"} {
		deliver(t, s, text)
		if b, err := os.ReadFile(path); err != nil || string(b) != text {
			t.Errorf("%q, %v, want %q", b, err, text)
		}
		// As logrotate does by its option create.
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// full takes some bytes, and no more until there is room again.
type full struct {
	w    io.Writer
	room int // negative: enough
}

func (f *full) Write(p []byte) (int, error) {
	if f.room < 0 || len(p) <= f.room {
		return f.w.Write(p)
	}
	n, err := f.w.Write(p[:f.room])
	f.room -= n
	return n, cmp.Or(err, error(syscall.ENOSPC))
}

func TestALineIsWrittenOnceWhenADiskWasFull(t *testing.T) {
	lines := []line{text(1), text(2), text(3)} // of 7 bytes
	const all = "line 1\nline 2\nline 3\n"
	for _, room := range []int{0, 6, 7, 10, 20} {
		t.Run(fmt.Sprint(room), func(t *testing.T) {
			var out bytes.Buffer
			path := filepath.Join(t.TempDir(), "flow.log")
			file := File(FileOptions{Path: path, MaxMegabytes: 1}).(*toFile)
			defer func() { _ = file.close() }()
			for name, sink := range map[string]struct {
				Sink
				*full
				written func() string
			}{
				"stdout": {full: &full{w: &out}, written: out.String},
				"file": {full: &full{w: file.file}, written: func() string {
					b, _ := os.ReadFile(path)
					return string(b)
				}},
			} {
				if name == "file" {
					file.w = sink.full
					sink.Sink = file
				} else {
					sink.Sink = &toWriter{name: name, w: sink.full}
				}
				sink.room = room
				for range 3 {
					if _, err := sink.deliver(context.Background(), lines); !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("%s: %v", name, err)
					}
				}
				sink.room = -1
				for range 2 { // the batch that waits, and the one after it
					if _, err := sink.deliver(context.Background(), lines); err != nil {
						t.Fatalf("%s: %v", name, err)
					}
				}
				if got := sink.written(); got != all+all {
					t.Errorf("%s: %q", name, got)
				}
			}
		})
	}
}

// Who makes room on a full disk takes the file away: the next one begins with a whole line.
func TestANewFileDoesNotBeginWithinALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flow.log")
	s := File(FileOptions{Path: path, MaxMegabytes: 1}).(*toFile)
	defer func() { _ = s.close() }()
	disk := &full{w: s.file, room: 10}
	s.w = disk
	lines := []line{text(1), text(2), text(3)}
	if _, err := s.deliver(context.Background(), lines); err == nil {
		t.Fatal("no error")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	disk.room = -1
	if _, err := s.deliver(context.Background(), lines); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "line 2\nline 3\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// The process before was killed within a line.
func TestAFileThatEndsWithinALineIsContinued(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flow.log")
	if err := os.WriteFile(path, []byte("line 0\nline"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := File(FileOptions{Path: path, MaxMegabytes: 1}).(*toFile)
	defer func() { _ = s.close() }()
	disk := &full{w: s.file, room: 0}
	s.w = disk
	if _, err := s.deliver(context.Background(), []line{text(1)}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	disk.room = -1
	for i := 1; i <= 2; i++ {
		if _, err := s.deliver(context.Background(), []line{text(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "line 0\nline\nline 1\nline 2\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// The disk fills within a line, and the file reaches its size limit before the rest of the lines is written.
func TestARotatedFileDoesNotBeginWithinALine(t *testing.T) {
	lines := []line{text(1), text(2), text(3)} // of 7 bytes
	const limit, batch = 1 << 20, 3 * 7
	for name, tc := range map[string]struct {
		size     int    // of the file before the lines
		appended string // by another process, while the disk is full
		want     string
	}{
		"exactly by these lines": {size: limit - batch, want: "line 1\nline 2\nline 3\n"},
		"by another process":     {size: limit - batch - 10, appended: "another process\n", want: "line 2\nline 3\n"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "flow.log")
			const opening = "line 0\n"
			if err := os.WriteFile(path, []byte(strings.Repeat("x", tc.size-len(opening)-1)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			s := File(FileOptions{Path: path, MaxMegabytes: 1}).(*toFile)
			defer func() { _ = s.close() }()
			deliver(t, s, opening)
			disk := &full{w: s.file, room: 10}
			s.w = disk
			if _, err := s.deliver(context.Background(), lines); !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			other, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := other.WriteString(tc.appended); err != nil {
				t.Fatal(err)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			disk.room = -1
			if _, err := s.deliver(context.Background(), lines); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path); err != nil || string(b) != tc.want {
				t.Errorf("%d bytes, %.40q, %v", len(b), b, err)
			}
			eventually(t, "the file that is put away", func() bool { return len(putAway(t, path)) == 1 })
		})
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
