//go:build e2e

// Package e2e brings real clusters up and takes them down again. It needs root and
// about a minute a cluster:
//
//	go test -C hack/cluster -tags e2e -v ./e2e
package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tools are the binaries under test, and the image that runs in pods.
type tools struct{ cluster, hello, image string }

func buildTools(t *testing.T) tools {
	t.Helper()
	dir := t.TempDir()
	bin := tools{
		cluster: filepath.Join(dir, "cluster"),
		hello:   filepath.Join(dir, "hello"),
		image:   filepath.Join(dir, "hello.tar"),
	}
	t.Setenv("CGO_ENABLED", "0")
	run(t, "go", "build", "-o", bin.cluster, "..")
	run(t, "go", "build", "-o", bin.hello, "./hello")
	run(t, "go", "run", "-C", "../../image", ".", "--output="+bin.image, "--tag=kidoban.dev/hello:dev",
		"--entrypoint=/hello", bin.hello+":/hello")
	return bin
}

// A testCluster runs the cluster command for one cluster.
type testCluster struct {
	tools
	name string
}

func (c testCluster) command(args ...string) *exec.Cmd {
	return exec.Command(c.cluster, append([]string{"--name=" + c.name}, args...)...)
}

func (c testCluster) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (c testCluster) try(args ...string) (string, error) {
	cmd := c.command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("cluster %s: %w: %s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out), nil
}

func (c testCluster) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return c.run(t, append([]string{"kubectl", "--"}, args...)...)
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// eventually retries for half a minute: what it waits for comes by itself.
func eventually(t *testing.T, try func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Error(err)
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func TestCluster(t *testing.T) {
	bin := buildTools(t)
	for _, mode := range []string{"nftables", "iptables"} {
		t.Run(mode, func(t *testing.T) {
			c := testCluster{bin, "e2e" + mode}
			t.Cleanup(func() { c.run(t, "down"); c.expectNothingLeft(t) })
			c.run(t, "up", "--nodes=2", "--proxy-mode="+mode)
			t.Log(c.run(t, "status"))
			c.run(t, "load", c.image)
			c.kubectl(t, "apply", "--filename=testdata/pods.yaml")
			c.kubectl(t, "rollout", "status", "daemonset/hello", "--timeout=60s")
			c.testConnections(t)
			c.testKubelet(t)
			c.testRestart(t)
			c.testPublished(t)
		})
	}
}

type podList struct {
	Items []struct {
		Metadata struct{ Name string }
		Spec     struct{ NodeName string }
		Status   struct{ PodIPs []struct{ IP string } }
	}
}

// testConnections has every pod, and every node, call every pod and the Service, in both families.
func (c testCluster) testConnections(t *testing.T) {
	var pods podList
	if err := json.Unmarshal([]byte(c.kubectl(t, "get", "pods", "--selector=app=hello", "--output=json")), &pods); err != nil {
		t.Fatal(err)
	}
	if len(pods.Items) != 2 {
		t.Fatalf("%d pods, want one a node", len(pods.Items))
	}
	type target struct{ address, port, answer string }
	var targets []target
	for _, p := range pods.Items {
		if len(p.Status.PodIPs) != 2 {
			t.Errorf("pod %s has addresses %v, want one of each family", p.Metadata.Name, p.Status.PodIPs)
		}
		for _, ip := range p.Status.PodIPs {
			targets = append(targets, target{ip.IP, "8080", p.Metadata.Name})
		}
	}
	services := strings.Fields(c.kubectl(t, "get", "service", "hello", "--output=jsonpath={.spec.clusterIPs[*]}"))
	if len(services) != 2 {
		t.Errorf("the Service has addresses %v, want one of each family", services)
	}
	for _, ip := range services {
		targets = append(targets, target{ip, "80", "hello-"})
	}
	for _, p := range pods.Items {
		for _, from := range []string{"--pod=" + p.Metadata.Name, "--node=" + p.Spec.NodeName} {
			for _, to := range targets {
				url := "http://" + net.JoinHostPort(to.address, to.port)
				eventually(t, func() error {
					answer, err := c.try("exec", from, "--", c.hello, "get", url)
					if err == nil && !strings.HasPrefix(answer, to.answer) {
						err = fmt.Errorf("%s to %s: answer %q, want %s", from, url, answer, to.answer)
					}
					return err
				})
			}
		}
	}
}

// testKubelet asks for what goes through the kubelet, and for what an agent's pod needs of its node.
func (c testCluster) testKubelet(t *testing.T) {
	if log := c.kubectl(t, "logs", "daemonset/hello"); !strings.Contains(log, "serves on") {
		t.Errorf("kubectl logs: %q", log)
	}
	answer := c.kubectl(t, "exec", "daemonset/hello", "--", "/hello", "get", "http://localhost:8080")
	if !strings.HasPrefix(answer, "hello-") {
		t.Errorf("kubectl exec: %q", answer)
	}
	c.kubectl(t, "rollout", "status", "daemonset/bpf", "--timeout=60s")
	for _, node := range []string{"n1", "n2"} {
		pins := c.run(t, "exec", "--node="+node, "--", "find", "/sys/fs/bpf", "-name", "hello-*")
		if n := len(strings.Fields(pins)); n != 1 {
			t.Errorf("%s has %d pins, want its own one: %q", node, n, pins)
		}
		c.run(t, "exec", "--node="+node, "--", "test", "-S", "/run/nri/nri.sock")
	}
	if metrics := c.kubectl(t, "get", "--raw", "/api/v1/nodes/n1/proxy/metrics"); !strings.Contains(metrics, "kubelet_running_pods") {
		t.Error("the kubelet's metrics lack kubelet_running_pods")
	}
}

// testRestart kills a node's containerd, kubelet and kube-proxy and expects them back.
func (c testCluster) testRestart(t *testing.T) {
	for _, program := range []string{"containerd", "kubelet", "kube-proxy"} {
		pidOf := func() (string, error) {
			return c.try("exec", "--node=n2", "--", "sh", "-c",
				`for p in /proc/[0-9]*; do [ "$(readlink $p/exe | xargs -r basename)" != "" ] && tr '\0' ' ' <$p/cmdline | grep -qE "^[^ ]*/`+program+` --config" && echo ${p#/proc/}; done; true`)
		}
		before, err := pidOf()
		if err != nil || strings.TrimSpace(before) == "" {
			t.Fatalf("no %s on n2: %q %v", program, before, err)
		}
		c.run(t, "exec", "--node=n2", "--", "kill", "-KILL", strings.TrimSpace(before))
		eventually(t, func() error {
			after, err := pidOf()
			if err == nil && (strings.TrimSpace(after) == "" || after == before) {
				err = fmt.Errorf("%s is not back", program)
			}
			return err
		})
	}
	c.kubectl(t, "wait", "--for=condition=Ready", "node", "n2", "--timeout=60s")
}

// testPublished reaches a server in the control plane's network namespace from outside, until the cluster is taken down.
func (c testCluster) testPublished(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	server := c.command("exec", "--publish="+port, "--", c.hello, "serve", address)
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	eventually(t, func() (err error) {
		answer, err = exec.Command(c.hello, "get", "http://"+address).Output()
		return err
	})
	if host, _ := os.Hostname(); strings.TrimSpace(string(answer)) != host {
		t.Errorf("answer %q, want %s", answer, host)
	}
	if status := c.run(t, "status"); !strings.Contains(status, "published-"+port) {
		t.Errorf("status lacks the server: %s", status)
	}
	if out := c.run(t, "down"); strings.Contains(out, "warning") {
		t.Error(out)
	}
	if err := server.Wait(); err == nil {
		t.Error("the server ended well, though it was killed")
	}
}

// TestInterrupted ends `cluster up` at different moments and expects that nothing remains.
func TestInterrupted(t *testing.T) {
	bin := buildTools(t)
	steps := []string{"starting the control plane", "starting node n1", "waiting for the nodes"}
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGKILL} {
		for _, step := range steps {
			t.Run(signal.String()+" when "+step, func(t *testing.T) {
				c := testCluster{bin, "e2einterrupt"}
				t.Cleanup(func() { c.run(t, "down"); c.expectNothingLeft(t) })
				c.interruptUp(t, step, signal)
				if signal == syscall.SIGINT {
					c.expectNothingLeft(t)
				}
			})
		}
	}
	t.Run("up after a killed up", func(t *testing.T) {
		c := testCluster{bin, "e2einterrupt"}
		t.Cleanup(func() { c.run(t, "down"); c.expectNothingLeft(t) })
		c.interruptUp(t, steps[2], syscall.SIGKILL)
		c.run(t, "up", "--nodes=1")
		if out, err := c.try("up"); err == nil || !strings.Contains(err.Error(), "is up already") {
			t.Errorf("up on a cluster that is up: %q, %v", out, err)
		}
	})
}

// TestFailureIsExplained breaks one program and expects that up says which, shows its log and cleans up.
func TestFailureIsExplained(t *testing.T) {
	bin := buildTools(t)
	c := testCluster{bin, "e2efailure"}
	c.run(t, "build") // the copies' cache for Go's own builds would be empty
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"etcd", "kube-scheduler", "containerd", "kubelet"} {
		t.Run(program, func(t *testing.T) {
			t.Cleanup(func() { c.run(t, "down"); c.expectNothingLeft(t) })
			copied := filepath.Join(t.TempDir(), "kidoban")
			run(t, "cp", "--archive", "--symbolic-link", filepath.Join(cache, "kidoban"), copied)
			found, err := filepath.Glob(filepath.Join(copied, "*/bin", program))
			if err != nil || len(found) == 0 {
				t.Fatalf("no %s in the cache: %v", program, err)
			}
			for _, path := range found {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte("#!/bin/sh\necho out of order\nexit 3\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("XDG_CACHE_HOME", filepath.Dir(copied))
			_, err = c.try("up", "--nodes=1")
			if err == nil {
				t.Fatal("up succeeded")
			}
			for _, want := range []string{program + " ended", "out of order", "exit status 3"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q: %v", want, err)
				}
			}
			c.expectNothingLeft(t)
		})
	}
}

// interruptUp sends a signal to `cluster up` when it prints a step.
func (c testCluster) interruptUp(t *testing.T, step string, signal syscall.Signal) {
	t.Helper()
	cmd := c.command("up", "--nodes=2")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var seen bytes.Buffer
	b := make([]byte, 1024)
	sent := false
	for {
		n, err := out.Read(b)
		seen.Write(b[:n])
		if !sent && strings.Contains(seen.String(), step) {
			sent = true
			if err := cmd.Process.Signal(signal); err != nil {
				t.Error(err)
			}
		}
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err == nil || !sent {
		t.Errorf("up was not interrupted: %s", seen.String())
	}
}

// expectNothingLeft looks for what belongs to a cluster by its name.
func (c testCluster) expectNothingLeft(t *testing.T) {
	t.Helper()
	id, state := "kidoban-"+c.name, "/var/lib/kidoban-cluster/"+c.name
	for _, pattern := range []string{"/run/netns/" + id + "-*", "/sys/fs/cgroup/" + id, "/sys/fs/cgroup/*/" + id, state} {
		left, err := filepath.Glob(pattern)
		if err != nil {
			t.Error(err)
		}
		for _, l := range left {
			t.Errorf("left: %s", l)
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Error(err)
	}
	for _, m := range strings.Split(string(mounts), "\n") {
		if strings.Contains(m, id) || strings.Contains(m, state) {
			t.Errorf("left: mount %s", m)
		}
	}
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Error(err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		cmdline := strings.ReplaceAll(string(b), "\x00", " ")
		// Pods' processes do not name the cluster; but a cgroup is not removed under one.
		if err == nil && (strings.Contains(cmdline, state) || strings.Contains(cmdline, "node-init "+c.name)) {
			t.Errorf("left: process %s %s", file, cmdline)
		}
	}
}
