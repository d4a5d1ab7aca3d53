package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// agentsPerProcess is how many agents one process runs.
const agentsPerProcess = 100

// fleetProcess is a running process of agents.
type fleetProcess struct {
	*process
	listen string
	nodes  []string
}

// startAgents starts the agents of these nodes, and does not wait for them.
func (c *cluster) startAgents(nodes []string) (*fleetProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	p, err := start(self, "agents", "--kubeconfig="+c.kubeconfig, "--listen="+listen, "--nodes="+strings.Join(nodes, ","))
	if err != nil {
		return nil, err
	}
	return &fleetProcess{process: p, listen: listen, nodes: nodes}, nil
}

// state asks a process how its agents are.
func (p *fleetProcess) state(ctx context.Context) (agentsState, error) {
	var s agentsState
	body, err := get(ctx, "http://"+p.listen+"/state")
	if err == nil {
		err = json.Unmarshal(body, &s)
	}
	return s, err
}

// fleet are the processes of agents.
type fleet []*fleetProcess

// startFleet starts the agents of these nodes.
func (c *cluster) startFleet(nodes []string) (fleet, error) {
	var f fleet
	for some := range slices.Chunk(nodes, agentsPerProcess) {
		p, err := c.startAgents(some)
		if err != nil {
			f.kill()
			return nil, err
		}
		f = append(f, p)
	}
	return f, nil
}

func (f fleet) kill() {
	for _, p := range f {
		_ = p.cmd.Process.Kill()
		p.ended <- <-p.ended // wait for its end, and leave what it was for the next who asks
	}
}

// total adds up the processes' states.
func (f fleet) total(ctx context.Context) (agentsState, error) {
	sum := agentsState{Bytes: map[part]int{}}
	for _, p := range f {
		select {
		case err := <-p.ended:
			p.ended <- err
			return sum, fmt.Errorf("a process of agents ended: %v; its log ends with: %s", err, p.log.last())
		default:
		}
		s, err := p.state(ctx)
		if err != nil {
			return sum, err
		}
		sum.Ready, sum.Watch, sum.List = sum.Ready+s.Ready, sum.Watch+s.Watch, sum.List+s.List
		for k, n := range s.Bytes {
			sum.Bytes[k] += n
		}
	}
	return sum, nil
}

func (s agentsState) bytes() int {
	n := 0
	for _, b := range s.Bytes {
		n += b
	}
	return n
}

// ready waits until the policies of n agents are in force.
func (f fleet) ready(ctx context.Context, n int) error {
	return poll(ctx, 10*time.Minute, 50*time.Millisecond, func() error {
		s, err := f.total(ctx)
		if err != nil {
			return err
		}
		if s.Ready < n {
			return fmt.Errorf("the policies of %d of %d agents are in force", s.Ready, n)
		}
		return nil
	})
}
