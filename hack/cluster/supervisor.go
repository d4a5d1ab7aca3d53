package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	restartDelay = time.Second
	shortLife    = 10 * time.Second // a program that lives less has failed to start
	maxFailures  = 5                // in a row
)

// A program is what a node's init keeps running.
type program struct {
	name string
	argv []string
	log  string

	failures int
	started  time.Time
}

// A supervisor is the work of PID 1: it reaps every process of the PID
// namespace and starts its programs again when they end. Nothing else in its
// process may wait for children, so os/exec is out.
type supervisor struct {
	mu      sync.Mutex
	running map[int]*program
	give    chan error // why it gave up
}

func newSupervisor() *supervisor {
	s := &supervisor{running: map[int]*program{}, give: make(chan error, 1)}
	go s.reap()
	return s
}

// start starts a program. Its output is appended to its log.
func (s *supervisor) start(p *program) error {
	if err := os.MkdirAll(filepath.Dir(p.log), 0o755); err != nil {
		return err
	}
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	// The lock keeps reap from meeting a child that is not in the table yet.
	s.mu.Lock()
	defer s.mu.Unlock()
	child, err := os.StartProcess(p.argv[0], p.argv, &os.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []*os.File{null, out, out},
		Sys:   &unix.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.started = time.Now()
	s.running[child.Pid] = p
	fmt.Printf("%s: started as process %d\n", p.name, child.Pid)
	return child.Release()
}

func (s *supervisor) reap() {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD):
			time.Sleep(100 * time.Millisecond)
		case err != nil:
			s.fail(fmt.Errorf("wait: %w", err))
			return
		default:
			s.ended(pid, status)
		}
	}
}

func (s *supervisor) ended(pid int, status unix.WaitStatus) {
	s.mu.Lock()
	p, ok := s.running[pid]
	delete(s.running, pid)
	s.mu.Unlock()
	if !ok {
		return // an orphan
	}
	fmt.Printf("%s: process %d ended with exit status %d, signal %d\n", p.name, pid, status.ExitStatus(), status.Signal())
	if time.Since(p.started) >= shortLife {
		p.failures = 0
	}
	p.failures++
	if p.failures == maxFailures {
		s.fail(fmt.Errorf("%s ended %d times in a row soon after its start\n%s", p.name, p.failures, logTail(p.log)))
		return
	}
	time.AfterFunc(restartDelay, func() {
		if err := s.start(p); err != nil {
			s.fail(err)
		}
	})
}

func (s *supervisor) fail(err error) {
	select {
	case s.give <- err:
	default: // one reason is enough
	}
}

// wait returns why the supervisor gave up.
func (s *supervisor) wait() error { return <-s.give }
