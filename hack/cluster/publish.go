package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// publish runs a command in the control plane's network namespace until it ends or ctx does. Meanwhile the machine's port of 127.0.0.1 leads
// to the same port of 127.0.0.1 in that namespace.
func (c *Cluster) publish(ctx context.Context, port uint16, argv []string) error {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	outside, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("publish port %d: %w", port, err)
	}
	defer outside.Close()
	argv = c.inControlPlane(argv)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Env = os.Stdin, os.Stdout, os.Stderr, c.clientEnvironment()
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	cmd.SysProcAttr = &unix.SysProcAttr{Pdeathsig: unix.SIGKILL}
	runtime.LockOSThread() // the signal comes at the end of the thread that started the command
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	// down ends the command, which would keep the namespace alive.
	name := fmt.Sprintf("published-%d", port)
	if p, err := processOf(cmd.Process.Pid); err == nil {
		if err := c.recordProcess(name, p); err != nil {
			return err
		}
		defer func() { _ = os.Remove(c.path("processes", name+".json")) }()
	}
	go c.forward(ctx, outside, address)
	err = cmd.Wait()
	if ctx.Err() != nil {
		return nil // it was asked to end
	}
	return err
}

// forward connections to an address in the control plane's network namespace.
func (c *Cluster) forward(ctx context.Context, from net.Listener, address string) {
	for {
		outer, err := from.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = outer.Close() }()
			var inner net.Conn
			err := inNetns(c.controlPlaneNetns(), func() (err error) {
				var dialer net.Dialer
				inner, err = dialer.DialContext(ctx, "tcp", address)
				return err
			})
			if err != nil {
				return // nothing listens there, or not yet: the client sees a connection that ends
			}
			defer func() { _ = inner.Close() }()
			go func() {
				_, _ = io.Copy(inner, outer)
				_ = inner.(*net.TCPConn).CloseWrite()
			}()
			_, _ = io.Copy(outer, inner)
		}()
	}
}
