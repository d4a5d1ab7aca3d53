package flowlog

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
}

// Stdout writes lines to the process's standard output. (The agent's own log goes to standard error.)
func Stdout() Sink { return toWriter{"stdout", os.Stdout} }

func (t toWriter) Name() string { return t.name }

func (t toWriter) limits() limits {
	return limits{lines: 1000, bytes: 256 << 10, linger: 100 * time.Millisecond}
}

func (t toWriter) deliver(_ context.Context, lines []line) (result, error) {
	var buf []byte
	for _, l := range lines {
		buf = append(buf, l.text...)
	}
	_, err := t.w.Write(buf)
	return result{}, err
}

func (t toWriter) close() error { return nil }

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

type toFile struct {
	toWriter
	file  *lumberjack.Logger
	opts  FileOptions
	begun time.Time // of the current file, as far as it is ours
}

// File writes lines to a file. The directory must exist or be possible to make.
func File(opts FileOptions) Sink {
	l := &lumberjack.Logger{Filename: opts.Path, MaxSize: opts.MaxMegabytes, MaxAge: opts.RetainDays, MaxBackups: opts.MaxBackups, Compress: true}
	return &toFile{toWriter: toWriter{"file", l}, file: l, opts: opts}
}

// deliver adds to the file. Somebody may have taken the file or its directory away: the lines go where a reader will look.
func (t *toFile) deliver(ctx context.Context, lines []line) (result, error) {
	if _, err := os.Stat(t.opts.Path); err != nil {
		_ = t.file.Close()
		t.begun = time.Time{}
	}
	switch {
	case t.begun.IsZero():
		t.begun = time.Now()
	case t.opts.MaxAge > 0 && time.Since(t.begun) > t.opts.MaxAge:
		if err := t.file.Rotate(); err != nil {
			return result{}, fmt.Errorf("put %s away: %w", t.opts.Path, err)
		}
		t.begun = time.Now()
	}
	res, err := t.toWriter.deliver(ctx, lines)
	if err != nil {
		_ = t.file.Close() // a file that could not be written is opened anew
		return res, fmt.Errorf("write to %s (the directory %s must be writable, and not full): %w", t.opts.Path, filepath.Dir(t.opts.Path), err)
	}
	return res, nil
}

func (t *toFile) close() error { return t.file.Close() }
