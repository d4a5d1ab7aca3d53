package agent

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
)

// NewKernel returns the kernel of the calling thread's network namespace, with a Dataplane whose maps are the Agent's alone from now on.
func NewKernel(dp *dataplane.Dataplane) Kernel { return kernel{dp} }

type kernel struct{ *dataplane.Dataplane }

func (kernel) Flows(addrs ...netip.Addr) iter.Seq2[[]conntrack.Flow, error] {
	return conntrack.Flows(addrs...)
}

func (kernel) NodeAddresses() (map[netip.Addr]bool, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this node's addresses: %w", err)
	}
	own := make(map[netip.Addr]bool, len(addrs))
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own, nil
}

func (kernel) ReadInterfaces() (node.Interfaces, error) {
	i, err := inspect.ReadInterfaces()
	if err != nil {
		return node.Interfaces{}, err
	}
	return node.Interfaces(*i), nil
}

func (kernel) WatchInterfaces(ctx context.Context, changed func()) error {
	return inspect.WatchInterfaces(ctx, changed)
}

func (kernel) Warnings() []inspect.Warning { return inspect.Warnings() }
