// Command init is PID 1 of the machine, and its modprobe. As the former it runs the programs of a list, one after the
// other, says how each ended, and switches the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/hack/vm/module"
)

// program is one of /etc/programs.json.
type program struct {
	Name, Path, Dir string
	Args            []string
}

// ended is what is written about each program to the machine's second serial port, a line of JSON each.
type ended struct {
	Name    string
	Code    int
	Seconds float64
}

func main() {
	if os.Getpid() != 1 {
		os.Exit(modprobe(os.Args[1:]))
	}
	err := run()
	if err != nil {
		fmt.Println("init:", err)
	}
	unix.Sync()
	// Ports are written out before the power goes.
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

var mounts = []struct{ kind, dir string }{
	{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"}, {"bpf", "/sys/fs/bpf"},
	{"cgroup2", "/sys/fs/cgroup"}, {"tracefs", "/sys/kernel/tracing"},
}

func run() error {
	for _, m := range mounts {
		if err := unix.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	// A mount in a namespace of its own must not come back here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	report, err := os.OpenFile(os.Getenv("report"), os.O_WRONLY, 0) // from the kernel's command line
	if err != nil {
		return err
	}
	defer func() { _ = report.Close() }()
	if err := raw(report); err != nil {
		return err
	}
	list, err := os.ReadFile("/etc/programs.json")
	if err != nil {
		return err
	}
	var programs []program
	if err := json.Unmarshal(list, &programs); err != nil {
		return err
	}
	// What a node's operating system, or its container runtime, loads at boot.
	for _, name := range []string{"br_netfilter", "nf_conntrack"} {
		if code := modprobe([]string{name}); code != 0 {
			return fmt.Errorf("module %s: modprobe's exit code is %d", name, code)
		}
	}
	for _, p := range programs {
		line, err := json.Marshal(p.run())
		if err != nil {
			return err
		}
		if _, err := report.Write(append(line, '\n')); err != nil {
			return err
		}
	}
	return unix.IoctlSetInt(int(report.Fd()), unix.TCSBRK, 1)
}

// raw lets the port write newlines as they are.
func raw(port *os.File) error {
	t, err := unix.IoctlGetTermios(int(port.Fd()), unix.TCGETS)
	if err != nil {
		return err
	}
	t.Oflag &^= unix.OPOST
	return unix.IoctlSetTermios(int(port.Fd()), unix.TCSETS, t)
}

func (p program) run() ended {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Dir = p.Dir
	cmd.Env = []string{"PATH=/bin:/sbin", "HOME=/root", "TMPDIR=/tmp"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	start := time.Now()
	err := cmd.Run()
	e := ended{Name: p.Name, Seconds: time.Since(start).Seconds()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		e.Code = exit.ExitCode()
	case err != nil:
		fmt.Println("init:", err)
		e.Code = -1
	}
	return e
}

// modprobe loads a module, named or by an alias, with what it needs: the kernel calls it so when it looks for a protocol,
// a kind of link or an expression of nftables. Its result is an exit code.
func modprobe(args []string) int {
	want := filepath.Base(args[len(args)-1])
	content, err := os.ReadFile(module.Table)
	if err != nil {
		return 1
	}
	var table []module.Module
	if err := json.Unmarshal(content, &table); err != nil {
		return 1
	}
	found := module.Find(table, want)
	if found == nil {
		return 1
	}
	for _, m := range found {
		f, err := os.Open(m.File())
		if err != nil {
			return 1
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return 1
		}
	}
	return 0
}
