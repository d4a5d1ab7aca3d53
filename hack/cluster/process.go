package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A process is the record of a process that up started. PIDs are used again;
// the same PID with the same start time since the same boot is the same process.
type process struct {
	PID       int    `json:"pid"`
	StartTime uint64 `json:"startTime"` // clock ticks since boot
	BootID    string `json:"bootID"`
}

// processOf describes the process that has pid now.
func processOf(pid int) (process, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, err
	}
	start, err := startTime(string(stat))
	if err != nil {
		return process{}, fmt.Errorf("/proc/%d/stat: %w", pid, err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return process{}, err
	}
	return process{PID: pid, StartTime: start, BootID: strings.TrimSpace(string(boot))}, nil
}

// startTime reads field 22 of proc_pid_stat(5). The second field, the command
// in parentheses, may itself hold blanks and parentheses.
func startTime(stat string) (uint64, error) {
	end := strings.LastIndexByte(stat, ')')
	fields := strings.Fields(stat[end+1:])
	const index = 22 - 3 // fields starts with the third
	if end < 0 || len(fields) <= index {
		return 0, fmt.Errorf("%d fields after the command, want %d", len(fields), index+1)
	}
	return strconv.ParseUint(fields[index], 10, 64)
}

// open returns a pidfd of the process, or fs.ErrNotExist if it has ended.
func (p process) open() (*os.File, error) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil, fs.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("pidfd of %d: %w", p.PID, err)
	}
	f := os.NewFile(uintptr(fd), fmt.Sprintf("pidfd:%d", p.PID))
	// Compare only now: what the pidfd refers to cannot change any more.
	if now, err := processOf(p.PID); err != nil || now != p {
		_ = f.Close()
		return nil, fs.ErrNotExist
	}
	return f, nil
}

// alive tells whether the process runs; one that has ended and waits for its
// parent does not.
func (p process) alive() bool {
	f, err := p.open()
	if err != nil {
		return false
	}
	defer f.Close()
	return !ended(f, 0)
}

// kill ends the process and waits for its end. For PID 1 of a PID namespace that
// includes all that ran in it. A process that is gone already is no error.
func (p process) kill() error {
	f, err := p.open()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.PidfdSendSignal(int(f.Fd()), unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %d: %w", p.PID, err)
	}
	if !ended(f, 20*time.Second) {
		return fmt.Errorf("process %d does not end", p.PID)
	}
	return nil
}

// ended waits until the process of a pidfd has ended, or for as long as given.
func ended(pidfd *os.File, timeout time.Duration) bool {
	deadline := time.Now().Add(timeout)
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd.Fd()), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, int(max(0, time.Until(deadline)).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		return err == nil && n == 1
	}
}

func (c *Cluster) recordProcess(name string, p process) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return writeFile(c.path("processes", name+".json"), b, 0o644)
}

// processes returns the records by component.
func (c *Cluster) processes() (map[string]process, error) {
	files, err := filepath.Glob(c.path("processes", "*.json"))
	if err != nil {
		return nil, err
	}
	all := map[string]process{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var p process
		if err := json.Unmarshal(b, &p); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".json")] = p
	}
	return all, nil
}
