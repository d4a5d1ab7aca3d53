package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inControlPlane is the command line that runs argv in the control plane's network namespace.
func (c *Cluster) inControlPlane(argv []string) []string {
	return append([]string{"nsenter", "--net=" + filepath.Join(netnsDir, c.controlPlaneNetns()), "--"}, argv...)
}

// inside is the command line that runs argv in all of the node's namespaces.
// What is outside the node's own /proc, /sys, /run and /var is the machine's.
func (n node) inside(argv []string) ([]string, error) {
	processes, err := n.c.processes()
	if err != nil {
		return nil, err
	}
	init, ok := processes[n.name()]
	if !ok || !init.alive() {
		return nil, fmt.Errorf("node %s of cluster %s does not run", n.name(), n.c.Name)
	}
	enter := []string{
		"nsenter", "--target=" + strconv.Itoa(init.PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--",
	}
	// nsenter goes to the root directory with the mount namespace: return, if there is a way.
	if wd, err := os.Getwd(); err == nil {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root%s", init.PID, wd)); err == nil {
			enter = append(enter, "env", "--chdir="+wd)
		}
	}
	return append(enter, argv...), nil
}

// clientEnvironment lets commands find the cluster's kubectl and its administrator's kubeconfig.
func (c *Cluster) clientEnvironment() []string {
	return append(os.Environ(), "PATH="+c.searchPath(), "KUBECONFIG="+c.kubeconfig("admin"))
}

// become replaces this process by the command line.
func (c *Cluster) become(argv []string) error {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return unix.Exec(path, argv, c.clientEnvironment())
}

// parseNode finds a node by its name or its number.
func (c *Cluster) parseNode(s string) (node, error) {
	index, err := strconv.Atoi(strings.TrimPrefix(s, "n"))
	if err != nil || index < 1 || index > c.Nodes {
		return node{}, fmt.Errorf("node %q: cluster %s has n1 to n%d", s, c.Name, c.Nodes)
	}
	return node{c: c, index: index}, nil
}

// insidePod is the command line that runs argv in the network namespace of a pod,
// given as namespace/name or name, and in the other namespaces of its node: the
// machine's programs see the pod's network.
func (c *Cluster) insidePod(ctx context.Context, pod string, argv []string) ([]string, error) {
	namespace, name, ok := strings.Cut(pod, "/")
	if !ok {
		namespace, name = "default", pod
	}
	out, err := c.kubectl(ctx, "", "get", "pod", "--namespace", namespace, name, "--output=json")
	if err != nil {
		return nil, err
	}
	var object struct {
		Metadata struct{ UID string }
		Spec     struct{ NodeName string }
	}
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		return nil, err
	}
	if object.Spec.NodeName == "" {
		return nil, fmt.Errorf("pod %s/%s is on no node yet", namespace, name)
	}
	n, err := c.parseNode(object.Spec.NodeName)
	if err != nil {
		return nil, err
	}
	pid, err := n.sandboxPID(ctx, object.Metadata.UID)
	if err != nil {
		return nil, fmt.Errorf("pod %s/%s: %w", namespace, name, err)
	}
	return n.inside(append([]string{"nsenter", "--target=" + pid, "--net", "--"}, argv...))
}

// sandboxPID returns the PID, as the node counts, of the sandbox of a pod.
func (n node) sandboxPID(ctx context.Context, uid string) (string, error) {
	filter := fmt.Sprintf(`labels."io.kubernetes.pod.uid"==%s,labels."io.cri-containerd.kind"==sandbox`, uid)
	ids, err := n.ctr(ctx, nil, "containers", "list", "--quiet", filter)
	if err != nil {
		return "", err
	}
	tasks, err := n.ctr(ctx, nil, "tasks", "list")
	if err != nil {
		return "", err
	}
	for _, line := range strings.Split(tasks, "\n") {
		// TASK PID STATUS
		if f := strings.Fields(line); len(f) == 3 && f[2] == "RUNNING" {
			for _, id := range strings.Fields(ids) {
				if f[0] == id {
					return f[1], nil
				}
			}
		}
	}
	return "", errors.New("has no running sandbox")
}

// ctr runs containerd's client on the node and returns what it prints.
func (n node) ctr(ctx context.Context, stdin *os.File, args ...string) (string, error) {
	argv, err := n.inside(append([]string{"ctr", "--namespace=k8s.io"}, args...))
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = n.c.clientEnvironment()
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s on %s: %w: %s", args[0], n.name(), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}

// load imports the images of an OCI or docker tar into the node's containerd.
func (n node) load(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	// By standard input: the file may lie where the node has something else mounted.
	_, err = n.ctr(ctx, f, "images", "import", "--all-platforms", "-")
	return err
}
