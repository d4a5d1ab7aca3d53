package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

var errLocked = errors.New("locked by another process")

// lock takes an exclusive lock on an open file or directory, until it is closed
// or its process ends. The error is errLocked if another process has it.
func lock(f *os.File) error {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	return err
}

// lockFile makes and locks a file, and calls waiting once if it has to wait.
func lockFile(ctx context.Context, path string, waiting func()) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := lock(f)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		if waiting != nil {
			waiting()
			waiting = nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// lock makes the cluster's directory and locks it against other commands that
// build the cluster up or tear it down.
func (c *Cluster) lock() (*os.File, error) {
	for {
		if err := os.MkdirAll(c.dir(), 0o755); err != nil {
			return nil, err
		}
		f, err := os.Open(c.dir())
		if err != nil {
			return nil, err
		}
		if err := lock(f); err != nil {
			return nil, errors.Join(fmt.Errorf("cluster %s: another `cluster up` or `cluster down` is at work on it: %w", c.Name, err), f.Close())
		}
		// The previous holder may have removed the directory.
		held, err1 := f.Stat()
		current, err2 := os.Stat(c.dir())
		if err1 == nil && err2 == nil && os.SameFile(held, current) {
			return f, nil
		}
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
}
