package main

import (
	"errors"
	"fmt"
	"io"
	"os"
)

// down removes a cluster, or what is left of one. That there is none is no error.
func (c *Cluster) down(out io.Writer) error {
	if os.Geteuid() != 0 {
		return errors.New("taking a cluster down needs root")
	}
	held, err := c.lock()
	if err != nil {
		return err
	}
	defer held.Close()
	if err := c.tearDown(out); err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s is gone\n", c.Name)
	return nil
}

// tearDown ends the cluster's processes and removes its network namespaces,
// cgroups and files, in the order in which these depend on each other: the end of
// a node's init takes with it every process and mount of the node. It goes by what
// is found rather than by cluster.json, and can be repeated.
func (c *Cluster) tearDown(out io.Writer) error {
	processes, err := c.processes()
	for name, p := range processes {
		if e := p.kill(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", name, e))
		}
	}
	if err != nil {
		return err // their records are still needed
	}
	warnings, err := c.removeNetns()
	for _, w := range warnings {
		fmt.Fprintf(out, "warning: %s\n", w)
	}
	if err := errors.Join(err, removeCgroups(c.id())); err != nil {
		return err
	}
	if err := os.RemoveAll(c.dir()); err != nil {
		return err
	}
	_ = os.Remove(c.root) // if it was the last cluster
	return nil
}
