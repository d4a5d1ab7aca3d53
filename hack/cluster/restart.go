package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// stopComponent ends a component of the cluster as a power failure would. A node's namespaces go with it, and what is on its disk stays.
func (c *Cluster) stopComponent(name string) error {
	p, err := c.recordOf(name)
	if err != nil {
		return err
	}
	if err := p.kill(); err != nil {
		return err
	}
	if n, err := c.parseNode(name); err == nil {
		// A node that boots has no cgroups of before; the kubelet would watch each for seconds.
		return errors.Join(n.unplug(), removeCgroups(n.cgroup()))
	}
	return nil
}

// startComponent starts a component that was stopped, and waits until it serves.
func (c *Cluster) startComponent(ctx context.Context, name string) error {
	p, err := c.recordOf(name)
	if err != nil {
		return err
	}
	if p.alive() {
		return fmt.Errorf("%s runs", name)
	}
	if n, err := c.parseNode(name); err == nil {
		r, err := n.start()
		if err != nil {
			return err
		}
		return n.loadPauseImage(ctx, []*running{r})
	}
	r, err := c.start(c.controlPlaneComponent(name))
	if err != nil || name != "kube-apiserver" {
		return err
	}
	return await(ctx, "the API server", 2*time.Minute, []*running{r}, func() error {
		_, err := c.kubectl(ctx, "", "get", "--raw", "/readyz")
		return err
	})
}

// recordOf is the record of a component that up has started.
func (c *Cluster) recordOf(name string) (process, error) {
	processes, err := c.processes()
	if err != nil {
		return process{}, err
	}
	p, ok := processes[name]
	if !ok {
		return process{}, fmt.Errorf("cluster %s has no component %s: `cluster status` lists them", c.Name, name)
	}
	return p, nil
}

// unplug takes away the network namespace of a node that does not run, and its end of the LAN.
func (n node) unplug() error {
	path := filepath.Join(netnsDir, n.netns())
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return inNetns(n.c.controlPlaneNetns(), func() error {
		// The kernel would remove it a while after the namespace.
		link, err := netlink.LinkByName(n.name())
		if errors.As(err, new(netlink.LinkNotFoundError)) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			return fmt.Errorf("remove %s: %w", n.name(), err)
		}
		return nil
	})
}
