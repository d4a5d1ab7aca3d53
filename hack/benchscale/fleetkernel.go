package main

import (
	"context"
	"iter"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
)

// fleetKernel is the kernel of a node that does not exist: an agent.Kernel that keeps the classes of addresses
// and calls changed for each that changes. Other maps are not kept, and nothing fails.
type fleetKernel struct {
	changed func(arrival)

	mu      sync.Mutex
	classes map[netip.Addr]compiler.ClassID
	entries int // of all maps, in the last Sync
}

// arrival is a change of an address in an agent's kernel.
type arrival struct {
	Agent   int // number of the agent in its process
	Address netip.Addr
	Present bool  // whether the address has a class now
	At      int64 // Unix time in nanoseconds
}

func (k *fleetKernel) Apply(c compiler.Changes) error {
	now := time.Now().UnixNano()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range c.Addresses {
		k.set(w.Key, w.Value, !w.Delete, now)
	}
	for _, a := range c.GoneAddresses {
		k.set(a, 0, false, now)
	}
	return nil
}

// set writes an address' class. The caller holds mu.
func (k *fleetKernel) set(a netip.Addr, class compiler.ClassID, present bool, now int64) {
	if present {
		k.classes[a] = class
	} else {
		delete(k.classes, a)
	}
	k.changed(arrival{Address: a, Present: present, At: now})
}

func (k *fleetKernel) Sync(want *compiler.Maps, _ func() error) (dataplane.Drift, error) {
	now := time.Now().UnixNano()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.entries = len(want.Pods) + len(want.Addresses) + len(want.Networks) + len(want.Rows) + len(want.Ports)
	if maps.Equal(k.classes, want.Addresses) {
		return dataplane.Drift{}, nil
	}
	for a := range k.classes {
		if _, ok := want.Addresses[a]; !ok {
			k.set(a, 0, false, now)
		}
	}
	for a, class := range want.Addresses {
		if was, ok := k.classes[a]; !ok || was != class {
			k.set(a, class, true, now)
		}
	}
	return dataplane.Drift{}, nil
}

// addresses calls f for each address that has a class.
func (k *fleetKernel) addresses(f func(netip.Addr)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for a := range k.classes {
		f(a)
	}
}

func (k *fleetKernel) FailClosed(*compiler.Maps) (int, error)                        { return 0, nil }
func (k *fleetKernel) CheckMaps() error                                              { return nil }
func (k *fleetKernel) CheckLinks() error                                             { return nil }
func (k *fleetKernel) Alone() (bool, error)                                          { return true, nil }
func (k *fleetKernel) EarlierIsolation() (map[netip.Addr][2]bool, error)             { return nil, nil }
func (k *fleetKernel) Attach() error                                                 { return nil }
func (k *fleetKernel) Heal() (int, error)                                            { return 0, nil }
func (k *fleetKernel) EstablishedTimeout() time.Duration                             { return time.Hour }
func (k *fleetKernel) Cut([]conntrack.Flow, time.Duration) error                     { return nil }
func (k *fleetKernel) NodeAddresses() (map[netip.Addr]bool, error)                   { return nil, nil }
func (k *fleetKernel) LearnsNames() bool                                             { return true }
func (k *fleetKernel) Patterns() (map[string]compiler.PatternID, compiler.PatternID) { return nil, 0 }
func (k *fleetKernel) PatternsOf(netip.Addr) []compiler.PatternID                    { return nil }
func (k *fleetKernel) ValidPatternsOf(netip.Addr) []compiler.PatternID               { return nil }
func (k *fleetKernel) MissOf(netip.Addr) (dataplane.Miss, bool)                      { return dataplane.Miss{}, false }
func (k *fleetKernel) LearnedNames() ([]dataplane.LearnedName, error)                { return nil, nil }
func (k *fleetKernel) SetReadsOwn(bool) error                                        { return nil }
func (k *fleetKernel) ForgetNames() error                                            { return nil }
func (k *fleetKernel) Usage() []dataplane.MapUsage                                   { return nil }
func (k *fleetKernel) Counters() (dataplane.Counters, error)                         { return dataplane.Counters{}, nil }
func (k *fleetKernel) RuleHits() (map[dataplane.Hit]uint64, error)                   { return nil, nil }
func (k *fleetKernel) ForgetHits(dataplane.Hit) error                                { return nil }
func (k *fleetKernel) ReadInterfaces() (node.Interfaces, error)                      { return node.Interfaces{}, nil }
func (k *fleetKernel) ReadUnseen() (map[node.NetNS][]node.Link, error)               { return nil, nil }
func (k *fleetKernel) ReadTunnels() (*inspect.Tunnels, error)                        { return &inspect.Tunnels{}, nil }
func (k *fleetKernel) SetTunnels(*inspect.Tunnels) error                             { return nil }
func (k *fleetKernel) SetJudgesLocal(bool) error                                     { return nil }
func (k *fleetKernel) Warnings() []inspect.Warning                                   { return nil }

func (k *fleetKernel) Flows(...netip.Addr) iter.Seq2[[]conntrack.Flow, error] {
	return func(func([]conntrack.Flow, error) bool) {}
}

func (k *fleetKernel) WatchInterfaces(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}

func (k *fleetKernel) WatchTunnels(ctx context.Context, _ func()) error {
	<-ctx.Done()
	return nil
}
