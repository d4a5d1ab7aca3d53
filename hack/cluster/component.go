package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A component is a process of the cluster: a part of the control plane, or a node's init.
type component struct {
	name    string
	netns   string // name of the network namespace that it runs in
	argv    []string
	unshare uintptr // further namespaces to make for it: CLONE_NEW*
}

// A running component belongs to the up that started it.
type running struct {
	name string
	log  string
	done chan struct{} // closed at its end
	err  error         // valid when done is closed
}

// start runs a component and records it. The order matters: the child waits
// until its record is written and ends if the parent dies before, so that there
// is never a process that down does not know.
func (c *Cluster) start(comp component) (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	logPath := c.log(comp.name)
	if err := os.MkdirAll(filepath.Dir(logPath), 0o755); err != nil {
		return nil, err
	}
	logFile, err := os.Create(logPath)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	recorded, release, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer recorded.Close()
	defer release.Close()

	cmd := exec.Command(self, append([]string{"component", "--netns", comp.netns, "--"}, comp.argv...)...)
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.ExtraFiles = []*os.File{recorded} // descriptor 3 of the child
	cmd.Env = append(os.Environ(), "PATH="+c.searchPath())
	cmd.Dir = "/"
	// A session of its own: a Ctrl-C is for up, which then ends its components itself.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Cloneflags: comp.unshare}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", comp.name, err)
	}
	r := &running{name: comp.name, log: logPath, done: make(chan struct{})}
	go func() {
		if r.err = cmd.Wait(); r.err == nil {
			r.err = errors.New("exit status 0")
		}
		close(r.done)
	}()
	p, err := processOf(cmd.Process.Pid)
	if err == nil {
		err = c.recordProcess(comp.name, p)
	}
	if err == nil {
		_, err = release.Write([]byte{1})
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", comp.name, err)
	}
	return r, nil
}

// becomeComponent is the child's side of start: it waits for its record, enters
// the network namespace and turns into the component.
func becomeComponent(ns string, argv []string) error {
	recorded := os.NewFile(3, "recorded")
	if _, err := io.ReadFull(recorded, make([]byte, 1)); err != nil {
		return errors.New("`cluster up` ended before this process was recorded")
	}
	if err := recorded.Close(); err != nil {
		return err
	}
	runtime.LockOSThread() // the thread that calls exec is the one whose namespaces remain
	h, err := netns.GetFromName(ns)
	if err != nil {
		return fmt.Errorf("network namespace %s: %w", ns, err)
	}
	if err := netns.Set(h); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", ns, err)
	}
	if err := h.Close(); err != nil {
		return err
	}
	return unix.Exec(argv[0], argv, os.Environ())
}

// failure describes a component that ended though it should run.
func (r *running) failure() error {
	return fmt.Errorf("%s ended: %w\n%s", r.name, r.err, logTail(r.log))
}

// logTail quotes the last lines of a log.
func logTail(path string) string {
	const lines = 25
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimRight(string(b), "\n"), "\n")
	if len(all) > lines {
		all = all[len(all)-lines:]
	}
	return fmt.Sprintf("--- last lines of %s\n%s\n---", path, strings.Join(all, "\n"))
}
