package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const pauseImage = "kidoban.dev/pause:dev"

// A node of the cluster. Nodes count from 1.
type node struct {
	c     *Cluster
	index int
}

func (n node) name() string  { return fmt.Sprintf("n%d", n.index) }
func (n node) netns() string { return n.c.id() + "-" + n.name() }

func (n node) path(elem ...string) string {
	return n.c.path(append([]string{n.name()}, elem...)...)
}

// log is where a program of the node writes.
func (n node) log(program string) string { return n.c.log(n.name() + "-" + program) }

// writeConfig writes the configuration of the node's programs.
func (n node) writeConfig() error {
	files := []struct {
		path, template string
		data           any
	}{
		{"containerd.toml", "containerd.toml", map[string]any{
			"PauseImage":  pauseImage,
			"CNIBin":      n.c.cniDirs(),
			"CNIConf":     n.path("cni"),
			"NRIRequired": n.c.NRIRequired,
		}},
		{"kubelet.yaml", "kubelet.yaml", map[string]string{
			"CA":          n.c.certificate("ca"),
			"Certificate": n.c.certificate(n.name()),
			"Key":         n.c.key(n.name()),
			"DNS":         n.c.dnsAddress(),
			"ResolvConf":  n.path("resolv.conf"),
			"CgroupRoot":  n.cgroup(),
		}},
		{"kube-proxy.yaml", "kube-proxy.yaml", map[string]any{
			"Mode":       n.c.ProxyMode,
			"Node":       n.name(),
			"PodCIDRs":   n.c.podCIDRs(),
			"Kubeconfig": n.c.kubeconfig("kube-proxy"),
			"Addresses":  n.addresses(),
		}},
		{"cni/cni.conflist", n.cniTemplate(), n.cniConfig()},
	}
	for _, f := range files {
		b, err := render(f.template, f.data)
		if err != nil {
			return err
		}
		if err := writeFile(n.path(f.path), b, 0o644); err != nil {
			return err
		}
	}
	if n.c.CNI == cniVPC {
		b, err := n.ipamConfig()
		if err != nil {
			return err
		}
		if err := writeFile(n.path("ipamd.json"), b, 0o644); err != nil {
			return err
		}
	}
	return writeFile(n.path("resolv.conf"), []byte("nameserver "+n.c.dnsAddress()+"\n"), 0o644)
}

// start makes the node's namespaces and starts its init in them.
func (n node) start() (*running, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := n.writeConfig(); err != nil {
		return nil, err
	}
	if err := n.makeCgroup(); err != nil {
		return nil, err
	}
	if err := n.setUpNodeNetwork(); err != nil {
		return nil, err
	}
	return n.c.start(component{
		name:    n.name(),
		netns:   n.netns(),
		argv:    []string{self, "node-init", n.c.Name, n.name()},
		unshare: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
	})
}

// loadPauseImage gives the node the image of its sandboxes as soon as its containerd answers.
func (n node) loadPauseImage(ctx context.Context, components []*running) error {
	err := await(ctx, "containerd of "+n.name(), 2*time.Minute, components, func() error {
		_, err := n.ctr(ctx, nil, "version")
		return err
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, logTail(n.log("containerd")))
	}
	return n.load(ctx, n.c.PauseImage)
}

// awaitNodes waits until every node is Ready, and free of the taint that it bore before that.
func (c *Cluster) awaitNodes(ctx context.Context, components []*running) error {
	err := await(ctx, "nodes", 2*time.Minute, components, func() error {
		_, err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", "node", "--all", "--timeout=2s")
		if err != nil {
			return err
		}
		taints, err := c.kubectl(ctx, "", "get", "nodes", "--output=jsonpath={.items[*].spec.taints[*].key}")
		if err == nil && taints != "" {
			err = fmt.Errorf("tainted: %s", taints)
		}
		return err
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	for _, n := range c.nodes() {
		err = fmt.Errorf("%w\n%s\n%s", err, logTail(n.log("containerd")), logTail(n.log("kubelet")))
	}
	return err
}
