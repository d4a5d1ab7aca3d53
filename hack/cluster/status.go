package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
)

// status prints what runs of the cluster; the error says what does not.
func (c *Cluster) status(ctx context.Context, out io.Writer) error {
	processes, err := c.processes()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "cluster %s: %s, kube-proxy in %s mode, files in %s\n\n", c.Name, c.nodeCount(), c.ProxyMode, c.dir())
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "COMPONENT\tPID\tSTATE")
	for _, name := range slices.Sorted(maps.Keys(processes)) {
		p, state := processes[name], "running"
		if !p.alive() {
			state = "ended"
			err = errors.Join(err, fmt.Errorf("%s has ended: see %s", name, c.log(name)))
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", name, p.PID, state)
	}
	if e := table.Flush(); e != nil {
		return e
	}
	if !c.Ready {
		return errors.Join(err, errors.New("the cluster is not up, or not yet"))
	}
	nodes, e := c.kubectl(ctx, "", "get", "nodes", "--output=wide")
	fmt.Fprintf(out, "\n%s", nodes)
	return errors.Join(err, e)
}
