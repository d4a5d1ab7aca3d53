package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// progress prints the steps of up with the time since its start.
type progress struct {
	out   io.Writer
	start time.Time
}

func (p progress) step(format string, args ...any) {
	fmt.Fprintf(p.out, "%5.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// up brings a cluster up and waits until its nodes are Ready. When it fails, or
// ctx ends, it takes away what it made.
func (c *Cluster) up(ctx context.Context, out io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("a cluster needs root: it makes namespaces, mounts and cgroups")
	}
	if c.Nodes < 1 || c.Nodes > maxNodes {
		return fmt.Errorf("%d nodes: want 1 to %d", c.Nodes, maxNodes)
	}
	if c.ProxyMode != "nftables" && c.ProxyMode != "iptables" {
		return fmt.Errorf("proxy mode %q: want nftables or iptables", c.ProxyMode)
	}
	if err := c.checkCNI(); err != nil {
		return err
	}
	held, err := c.lock()
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }()
	switch old, err := loadCluster(c.root, c.Name); {
	case err == nil && old.Ready:
		return fmt.Errorf("cluster %s is up already, with %s, since %s: take it down first with `cluster down --name %s`",
			c.Name, old.nodeCount(), old.Created.Format(time.DateTime), c.Name)
	case err == nil || !errors.Is(err, errNoCluster):
		fmt.Fprintf(out, "removing what an interrupted `cluster up` left of cluster %s\n", c.Name)
		if err := c.tearDown(out); err != nil {
			return err
		}
		_ = held.Close() // of the directory that is gone
		if held, err = c.lock(); err != nil {
			return err
		}
	}
	defer func() {
		if err != nil {
			fmt.Fprintln(out, "failed: removing what was made")
			err = errors.Join(err, c.tearDown(out))
		}
	}()
	if err := c.prepare(ctx, out); err != nil {
		return err
	}
	return c.assemble(ctx, progress{out, time.Now()})
}

// prepare finds or builds what a cluster is made of.
func (c *Cluster) prepare(ctx context.Context, out io.Writer) error {
	if err := installMissing(ctx, out); err != nil {
		return err
	}
	b, err := newBuilder(ctx, out)
	if err != nil {
		return err
	}
	controlPlane, err := b.ensure(controlPlaneSet)
	if err != nil {
		return err
	}
	node, err := b.ensure(nodeSet)
	if err != nil {
		return err
	}
	if c.CNI == cniVPC {
		vpc, err := b.ensure(vpcSet)
		if err != nil {
			return err
		}
		c.VPC = filepath.Join(vpc, "bin")
	}
	c.ControlPlane = filepath.Join(controlPlane, "bin")
	c.Node = filepath.Join(node, "bin")
	c.PauseImage = filepath.Join(node, "pause.tar")
	return nil
}

func (c *Cluster) assemble(ctx context.Context, p progress) error {
	c.Created = time.Now()
	if err := c.save(); err != nil {
		return err
	}
	if err := c.writePKI(); err != nil {
		return err
	}
	p.step("cluster %s: starting the control plane", c.Name)
	components, err := c.startControlPlane(ctx)
	if err != nil {
		return err
	}
	for _, n := range c.nodes() {
		p.step("starting node %s", n.name())
		r, err := n.start()
		if err != nil {
			return err
		}
		components = append(components, r)
	}
	for _, n := range c.nodes() {
		if err := n.loadPauseImage(ctx, components); err != nil {
			return err
		}
	}
	p.step("waiting for the nodes to be Ready")
	if err := c.awaitNodes(ctx, components); err != nil {
		return err
	}
	if err := c.awaitDefaultServiceAccount(ctx, components); err != nil {
		return err
	}
	c.Ready = true
	if err := c.save(); err != nil {
		return err
	}
	p.step("cluster %s is up: %s, %s, CNI %s, kube-proxy in %s mode", c.Name, c.nodeCount(), strings.Join(c.IPFamilies, " and "), c.CNI, c.ProxyMode)
	return nil
}

// awaitDefaultServiceAccount waits until pods can be made in the namespace default.
func (c *Cluster) awaitDefaultServiceAccount(ctx context.Context, components []*running) error {
	return await(ctx, "the service account default", time.Minute, components, func() error {
		_, err := c.kubectl(ctx, "", "get", "serviceaccount", "default")
		return err
	})
}
