package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// How long to wait before links and routes are watched again after that failed.
const rewatch = 5 * time.Second

// followInterfaces keeps up with the node's links and routes until the context is done.
func (a *Agent) followInterfaces(ctx context.Context) {
	for ctx.Err() == nil {
		err := dataplane.WatchInterfaces(ctx, func() { a.refreshInterfaces(ctx) })
		if err == nil {
			continue
		}
		a.opts.Log.Error(err, "Cannot follow the node's interfaces; it is tried again")
		a.refreshInterfaces(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// refreshInterfaces takes in what the node's links and routes say now. On an error what was known stays.
func (a *Agent) refreshInterfaces(ctx context.Context) {
	a.interfacesMu.Lock() // what was read first must not be taken in last
	defer a.interfacesMu.Unlock()
	now, err := dataplane.ReadInterfaces()
	if err != nil {
		a.opts.Log.Error(err, "Cannot read the node's interfaces; what was known of them stays")
		return
	}
	a.mu.Lock()
	same := now.Equal(a.state.interfaces)
	a.mu.Unlock()
	if !same {
		a.update(ctx, func(s *state) { s.setInterfaces(now) })
	}
}

// setInterfaces takes in where pods and the world outside are.
func (s *state) setInterfaces(now *dataplane.Interfaces) {
	was := make(map[*pod]uint32, len(s.pods))
	for _, p := range s.pods {
		was[p] = s.interfaceOf(p)
	}
	s.interfaces = now
	s.routed = map[netip.Addr]uint32{}
	for index, addrs := range now.Routed {
		for _, addr := range addrs {
			if _, ok := s.routed[addr]; ok {
				index = 0 // two lead to it
			}
			s.routed[addr] = index
		}
	}
	s.compiler.SetUplinks(now.Uplinks)
	for key, p := range s.pods {
		if s.interfaceOf(p) != was[p] {
			s.compilePod(key, p)
		}
	}
}

// interfaceOf is the interface that is the pod's alone, 0 where there is none: all the pod's addresses that something leads to are
// behind it, and no other address is.
func (s *state) interfaceOf(p *pod) uint32 {
	own := uint32(0)
	for _, addr := range p.addresses {
		index, ok := s.routed[addr]
		switch {
		case !ok:
		case index == 0 || own != 0 && own != index:
			return 0
		default:
			own = index
		}
	}
	for _, addr := range s.interfaces.Routed[own] {
		if !slices.Contains(p.addresses, addr) {
			return 0
		}
	}
	return own
}
