package sink

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"
)

// toWriter writes lines one after the other.
type toWriter struct {
	name string
	w    io.Writer
	out  int // bytes of the batch at hand that were written before an error
}

// Stdout writes lines to the process's standard output. (The agent's own log goes to standard error.)
func Stdout() Sink { return &toWriter{name: "stdout", w: os.Stdout} }

func (t *toWriter) Name() string { return t.name }

func (t *toWriter) limits() limits {
	return limits{lines: 1000, bytes: 256 << 10, linger: 100 * time.Millisecond}
}

func (t *toWriter) deliver(_ context.Context, lines []line) (result, error) {
	var buf []byte
	for _, l := range lines {
		buf = append(buf, l.text...)
	}
	n, err := t.w.Write(buf[t.out:])
	if t.out += n; err != nil {
		return result{}, err // the same lines come again
	}
	t.out = 0
	return result{}, nil
}

func (t *toWriter) close() error { return nil }

// FileOptions say when a file is put away and how long it is kept. What is put away is compressed by gzip.
type FileOptions struct {
	// Path of the file; those that were put away lie beside it, with the time in their names.
	Path string
	// MaxMegabytes is the size at which it is put away.
	MaxMegabytes int
	// MaxAge is the time after which it is put away, and RetainDays for how many days it is kept then.
	MaxAge     time.Duration
	RetainDays int
	// MaxBackups is the most files that are kept.
	MaxBackups int
}

// Check validates the numbers. prefix begins the names of the flags that set them, for the error.
func (o *FileOptions) Check(prefix string) error {
	// Beyond these, lumberjack fails each write, or deletes rotated files at once: it multiplies them to bytes and nanoseconds.
	if o.MaxMegabytes < 0 || o.MaxMegabytes > 1e6 || o.RetainDays < 0 || o.RetainDays > 36500 || o.MaxBackups < 0 {
		return fmt.Errorf("--%[1]s-max-size must be from 0 to 1000000, --%[1]s-max-age from 0 to 36500, --%[1]s-max-backups at least 0", prefix)
	}
	return nil
}

type toFile struct {
	toWriter
	file  *lumberjack.Logger
	opts  FileOptions
	at    os.FileInfo // what was at the path; nil: nothing
	begun time.Time   // of the current file, as far as it is ours
	torn  bool        // the file at the path ends within a line that another process, or an earlier one, began
}

// File writes lines to a file. The directory must exist or be possible to make.
func File(opts FileOptions) Sink {
	l := &lumberjack.Logger{Filename: opts.Path, MaxSize: opts.MaxMegabytes, MaxAge: opts.RetainDays, MaxBackups: opts.MaxBackups, Compress: true}
	return &toFile{toWriter: toWriter{name: "file", w: l}, file: l, opts: opts}
}

// deliver adds to the file that is at the path.
func (t *toFile) deliver(ctx context.Context, lines []line) (result, error) {
	if t.follow() {
		t.out = whole(lines, t.out)
		t.torn = endsWithinLine(t.opts.Path)
	}
	if t.opts.MaxAge > 0 && time.Since(t.begun) > t.opts.MaxAge || t.isFull(lines) {
		if err := t.file.Rotate(); err != nil {
			return result{}, fmt.Errorf("put %s away: %w", t.opts.Path, err)
		}
		t.out = whole(lines, t.out)
		t.torn = false
	}
	var res result
	err := t.endLine()
	if err == nil {
		res, err = t.toWriter.deliver(ctx, lines)
	}
	t.follow()
	if err != nil {
		_ = t.file.Close() // a file that could not be written is opened anew
		return res, fmt.Errorf("write to %s (the directory %s must be writable, and not full): %w", t.opts.Path, filepath.Dir(t.opts.Path), err)
	}
	return res, nil
}

// endLine ends the line within which the file ends: the next one would become part of it.
func (t *toFile) endLine() error {
	if !t.torn {
		return nil
	}
	_, err := t.w.Write([]byte("\n"))
	t.torn = err != nil
	return err
}

func endsWithinLine(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false // the error of writing to it says more
	}
	defer func() { _ = f.Close() }()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || end == 0 {
		return false
	}
	var last [1]byte
	_, err = f.ReadAt(last[:], end-1)
	return err == nil && last[0] != '\n'
}

// isFull reports whether the rest of the lines would fill the file to its size limit. Rotating it here, and not while it is written,
// starts the next file with a complete line.
func (t *toFile) isFull(lines []line) bool {
	if t.at == nil || t.opts.MaxMegabytes == 0 {
		return false
	}
	rest := int64(-t.out)
	for _, l := range lines {
		rest += int64(len(l.text))
	}
	return t.at.Size()+rest >= int64(t.opts.MaxMegabytes)<<20
}

// follow lets go of the file when another is at the path, or none, and reports that. Another process may have moved it or removed its directory: the
// lines go where a reader will look. It may have been us, by its size or age: what we made is opened again.
func (t *toFile) follow() bool {
	now, _ := os.Stat(t.opts.Path)
	if os.SameFile(now, t.at) {
		t.at = now // with its size
		return false
	}
	_ = t.file.Close()
	t.at, t.begun = now, time.Now()
	return true
}

// whole is how many of the first n bytes of lines are in lines that end there: another file does not begin within a line.
func whole(lines []line, n int) int {
	end := 0
	for _, l := range lines {
		if end+len(l.text) > n {
			break
		}
		end += len(l.text)
	}
	return end
}

func (t *toFile) close() error { return t.file.Close() }
