package main

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"testing"
)

func TestStartTime(t *testing.T) {
	after := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 98765 20 21"
	for _, stat := range []string{"42 (etcd)" + after, "42 (a b) S 1) (" + ")" + after, "42 ()" + after} {
		if got, err := startTime(stat); err != nil || got != 98765 {
			t.Errorf("%q: %d, %v", stat, got, err)
		}
	}
	for _, stat := range []string{"", "42 etcd S 1", "42 (etcd) S 1 2 3"} {
		if got, err := startTime(stat); err == nil {
			t.Errorf("%q: %d, want an error", stat, got)
		}
	}
}

// startSleep starts a process that runs until it is killed.
func startSleep(t *testing.T) (*exec.Cmd, process) {
	t.Helper()
	cmd := exec.Command("sleep", "infinity")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	p, err := processOf(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return cmd, p
}

func TestKillEndsTheRecordedProcess(t *testing.T) {
	cmd, p := startSleep(t)
	if !p.alive() {
		t.Fatal("not alive after its start")
	}
	if err := p.kill(); err != nil {
		t.Fatal(err)
	}
	if p.alive() {
		t.Error("alive after kill") // it is a zombie now
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("it ended with %v", err)
	}
	if err := p.kill(); err != nil {
		t.Errorf("kill of what is gone: %v", err)
	}
}

func TestKillSparesAnotherProcessWithThePID(t *testing.T) {
	_, p := startSleep(t)
	for name, old := range map[string]process{
		"started at another time": {PID: p.PID, StartTime: p.StartTime - 1, BootID: p.BootID},
		"of another boot":         {PID: p.PID, StartTime: p.StartTime, BootID: "another"},
	} {
		if old.alive() {
			t.Errorf("%s: alive", name)
		}
		if err := old.kill(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !p.alive() {
			t.Fatalf("%s: killed a process that it does not record", name)
		}
	}
}

func TestProcessRecords(t *testing.T) {
	c := testCluster(t, 1)
	if all, err := c.processes(); err != nil || len(all) != 0 {
		t.Errorf("before the first: %v, %v", all, err)
	}
	self, err := processOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.recordProcess("etcd", self); err != nil {
		t.Fatal(err)
	}
	all, err := c.processes()
	if err != nil || len(all) != 1 || all["etcd"] != self {
		t.Errorf("%v, %v; want %v", all, err, self)
	}
	if _, err := (process{PID: 1 << 22, BootID: self.BootID}).open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a PID that no process has: %v", err)
	}
}
