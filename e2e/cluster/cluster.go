// Package cluster drives hack/cluster: it brings a cluster up and surely takes it down again, and runs commands and makes
// API calls inside it.
package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Cluster is one test cluster of this machine.
type Cluster struct {
	Name string
	// Program is the executable of hack/cluster.
	Program string
	// Repo is the root of the clone. Commands run there.
	Repo string
	// Log is where programs that report progress write to.
	Log io.Writer

	processes map[string]int // PIDs by component, as they were after Up
	reaper    *reaper
}

// Up brings the cluster up with the flags of `cluster up`, or takes the one that is up already and says so. It goes away
// with this process, however that ends, unless Keep is called; Down takes it down now.
func (c *Cluster) Up(ctx context.Context, flags ...string) (already bool, err error) {
	if err := c.readProcesses(ctx); err != nil {
		return false, c.UpAnew(ctx, flags...)
	}
	c.reaper, err = startReaper(c)
	return true, err
}

// UpAnew is Up, but takes a cluster that is up already down first.
func (c *Cluster) UpAnew(ctx context.Context, flags ...string) (err error) {
	if _, err := Output(c.Command(ctx, "down")); err != nil {
		return err
	}
	if c.reaper, err = startReaper(c); err != nil {
		return err
	}
	if err := c.run(c.Command(ctx, append([]string{"up"}, flags...)...)); err != nil {
		return err
	}
	return c.readProcesses(ctx)
}

// Down takes the cluster down. It is no error if Up failed, or was not called.
func (c *Cluster) Down() error { return c.reaper.finish("down") }

// Keep leaves the cluster up when this process ends.
func (c *Cluster) Keep() error { return c.reaper.finish("keep") }

// Load gives the images of OCI tars to every node.
func (c *Cluster) Load(ctx context.Context, tars ...string) error {
	return c.run(c.Command(ctx, append([]string{"load"}, tars...)...))
}

// Kubectl is the cluster's kubectl, as administrator.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) *exec.Cmd {
	return c.Command(ctx, append([]string{"kubectl", "--"}, args...)...)
}

// Outside is a command in the network namespace of the control plane: beside the nodes, outside the pods.
func (c *Cluster) Outside(ctx context.Context, argv ...string) *exec.Cmd {
	return c.Command(ctx, append([]string{"exec", "--"}, argv...)...)
}

// OnNode is a command in all namespaces of a node.
func (c *Cluster) OnNode(ctx context.Context, node string, argv ...string) *exec.Cmd {
	return c.Command(ctx, append([]string{"exec", "--node", node, "--"}, argv...)...)
}

// Command is a call of the program, for this cluster. When ctx ends it is asked to stop, and gets time to clean up.
func (c *Cluster) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.Program, append([]string{"--name", c.Name}, args...)...)
	cmd.Dir = c.Repo
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = time.Minute
	return cmd
}

// Output runs a command and returns what it prints. Its error holds what it says on standard error.
func Output(cmd *exec.Cmd) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// Lines returns the lines of a command's output, without their line feeds. Empty output has none.
func Lines(output string) []string {
	if output == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(output, "\n"), "\n")
}

// run runs a command that reports progress, and asks it to stop if this process is killed.
func (c *Cluster) run(cmd *exec.Cmd) error {
	cmd.Stdout, cmd.Stderr = c.Log, c.Log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // it is the end of the thread that started it that counts
	defer runtime.UnlockOSThread()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return nil
}

// Signal sends a signal to a component of the control plane, as kube-apiserver.
func (c *Cluster) Signal(component string, signal syscall.Signal) error {
	pid, err := c.process(component)
	if err != nil {
		return err
	}
	return syscall.Kill(pid, signal)
}

// Stop ends components of the control plane, or nodes, as a power failure would.
func (c *Cluster) Stop(ctx context.Context, components ...string) error {
	_, err := Output(c.Command(ctx, append([]string{"stop"}, components...)...))
	return err
}

// Start starts what Stop ended, and waits until the API server and a node's containerd answer.
func (c *Cluster) Start(ctx context.Context, components ...string) error {
	if _, err := Output(c.Command(ctx, append([]string{"start"}, components...)...)); err != nil {
		return err
	}
	out, _ := Output(c.Command(ctx, "status")) // an error says that others are still stopped
	c.parseProcesses(out)
	return nil
}

// Dir is where the cluster keeps a file: etcd's data in "etcd", logs in "log", node n1's /var in "n1/var".
func (c *Cluster) Dir(elem ...string) string {
	return filepath.Join(append([]string{"/var/lib/kidoban-cluster", c.Name}, elem...)...)
}

func (c *Cluster) process(component string) (int, error) {
	pid, ok := c.processes[component]
	if !ok {
		return 0, fmt.Errorf("cluster %s has no component %s", c.Name, component)
	}
	return pid, nil
}

// readProcesses learns the PIDs of the components. It fails if one of them does not run.
func (c *Cluster) readProcesses(ctx context.Context) error {
	out, err := Output(c.Command(ctx, "status"))
	if err != nil {
		return err
	}
	c.parseProcesses(out)
	return nil
}

func (c *Cluster) parseProcesses(out string) {
	c.processes = map[string]int{}
	for line := range strings.Lines(out) {
		// COMPONENT PID STATE
		if f := strings.Fields(line); len(f) == 3 && f[2] == "running" {
			if pid, err := strconv.Atoi(f[1]); err == nil {
				c.processes[f[0]] = pid
			}
		}
	}
}

// FindRepo is the root of the clone that the working directory is in.
func FindRepo() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "hack", "cluster")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no hack/cluster here or above: call this inside a clone of the repo")
		}
		dir = parent
	}
}
