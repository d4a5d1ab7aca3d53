// Package nodetest has tests of the agent and the dataplane together, on a node that is a network namespace.
package nodetest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const insideVariable = "KIDOBAN_TEST_INSIDE"

// TestMain runs the tests in mount and network namespaces of their own, which are the node. The kernel takes both away with the process.
func TestMain(m *testing.M) {
	if os.Getenv(insideVariable) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	var failed *exec.ExitError
	switch err := cmd.Run(); {
	case errors.As(err, &failed):
		os.Exit(failed.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "run the tests in namespaces of their own (needs root):", err)
		os.Exit(1)
	}
}
