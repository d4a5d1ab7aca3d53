package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/e2e/reach"
)

// initPID prints, on a node, the PID of the container $0. The shim leaves it there.
const initPID = `"$(cat "/run/containerd/io.containerd.runtime.v2.task/k8s.io/$0/init.pid")"`

// InPod is a command in all namespaces of a pod's first container. It needs neither the API server nor the kubelet.
func (c *Cluster) InPod(ctx context.Context, pod *corev1.Pod, argv ...string) (*exec.Cmd, error) {
	container, err := containerOf(pod)
	if err != nil {
		return nil, err
	}
	enter := []string{"sh", "-c", `exec nsenter --all --target ` + initPID + ` -- "$@"`, container}
	return c.OnNode(ctx, pod.Spec.NodeName, append(enter, argv...)...), nil
}

// SignalPod sends a signal, as KILL, to the first process of a pod's first container. It comes from outside the container: a
// container's own PID 1 ignores what it has no handler for, from within.
func (c *Cluster) SignalPod(ctx context.Context, pod *corev1.Pod, signal string) error {
	container, err := containerOf(pod)
	if err != nil {
		return err
	}
	_, err = Output(c.OnNode(ctx, pod.Spec.NodeName, "sh", "-c", `kill -s "$1" `+initPID, container, signal))
	return err
}

func containerOf(pod *corev1.Pod) (string, error) {
	for _, status := range pod.Status.ContainerStatuses {
		if id, ok := strings.CutPrefix(status.ContainerID, "containerd://"); ok && status.State.Running != nil {
			return id, nil
		}
	}
	return "", fmt.Errorf("no container of pod %s/%s runs", pod.Namespace, pod.Name)
}

// Dial runs `probe dial` in a pod.
func (c *Cluster) Dial(ctx context.Context, pod *corev1.Pod, targets []reach.Target, timeout time.Duration) ([]reach.Result, error) {
	cmd, err := c.InPod(ctx, pod, dialCommand("/probe", targets, timeout)...)
	if err != nil {
		return nil, err
	}
	return results(cmd)
}

// DialOutside runs `probe dial`, the given executable, in the network namespace of the control plane.
func (c *Cluster) DialOutside(ctx context.Context, probe string, targets []reach.Target, timeout time.Duration) ([]reach.Result, error) {
	return results(c.Outside(ctx, dialCommand(probe, targets, timeout)...))
}

func dialCommand(probe string, targets []reach.Target, timeout time.Duration) []string {
	argv := []string{probe, "dial", "--timeout", timeout.String()}
	for _, target := range targets {
		argv = append(argv, target.String())
	}
	return argv
}

func results(cmd *exec.Cmd) ([]reach.Result, error) {
	out, err := Output(cmd)
	if err != nil {
		return nil, err
	}
	var results []reach.Result
	lines := bufio.NewScanner(strings.NewReader(out))
	for lines.Scan() {
		var r reach.Result
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, fmt.Errorf("%s printed %q: %w", strings.Join(cmd.Args, " "), lines.Text(), err)
		}
		results = append(results, r)
	}
	return results, lines.Err()
}
