package agent

import (
	"context"
	"fmt"
	"iter"
	"net"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
)

// NewKernel returns the kernel of the calling thread's network namespace, with a Dataplane whose maps are the Agent's alone from now on.
// tunnelEnds are the ends of tunnels besides those that the kernel has; with any, no other address is one.
func NewKernel(dp *dataplane.Dataplane, tunnelEnds []netip.Prefix) Kernel {
	return kernel{dp, tunnelEnds}
}

type kernel struct {
	*dataplane.Dataplane
	tunnelEnds []netip.Prefix
}

func (kernel) Flows(addrs ...netip.Addr) iter.Seq2[[]conntrack.Flow, error] {
	return conntrack.Flows(addrs...)
}

func (kernel) EstablishedTimeout() time.Duration { return conntrack.EstablishedTimeout() }

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
	return inspect.ReadInterfaces()
}

func (kernel) ReadUnseen() (map[node.NetNS][]node.Link, error) { return inspect.ReadUnseen() }

func (kernel) WatchInterfaces(ctx context.Context, changed func()) error {
	return inspect.WatchInterfaces(ctx, changed)
}

func (k kernel) ReadTunnels() (*inspect.Tunnels, error) {
	tunnels, err := inspect.ReadTunnels()
	if err == nil {
		tunnels.AddEnds(k.tunnelEnds)
	}
	return tunnels, err
}

func (kernel) WatchTunnels(ctx context.Context, changed func()) error {
	return inspect.WatchTunnels(ctx, changed)
}

func (k kernel) Warnings() []inspect.Warning {
	warnings := inspect.Warnings()
	if tunnels, err := k.ReadTunnels(); err == nil {
		warnings = append(warnings, tunnels.Warnings()...)
	}
	return warnings
}
