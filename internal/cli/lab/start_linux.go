package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kidoban/kidoban/internal/cli/command"
)

// insideVariable tells the process that it is the one with namespaces of its own.
const insideVariable = "KIDOBAN_LAB_INSIDE"

// start runs the lab in a process with mount and network namespaces of its own, which the kernel takes away with it.
func start(ctx context.Context, env *command.Env, o *options) error {
	if os.Getenv(insideVariable) != "" {
		return inside(ctx, env, o)
	}
	if os.Geteuid() != 0 {
		return errors.New("the lab needs root: it makes network namespaces and loads a BPF program (sudo kubectl-kidoban lab …)")
	}
	runtime.LockOSThread() // the death signal comes when the thread that started the process ends
	defer runtime.UnlockOSThread()
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	streams := env.Raw() // it is the plugin itself
	cmd.Stdin, cmd.Stdout, cmd.Stderr = streams.In, streams.Out, streams.ErrOut
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a process with namespaces of its own: %w", err)
	}
	// A terminal's ctrl-c reaches both; a signal to this process alone is passed on.
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(os.Interrupt) })
	defer stop()
	var failed *exec.ExitError
	switch err := cmd.Wait(); {
	case errors.As(err, &failed) && failed.ExitCode() == command.ExitNo:
		return command.ErrNo
	case errors.As(err, &failed):
		return command.ErrNoAnswer
	default:
		return err
	}
}
