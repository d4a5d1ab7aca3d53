package agent

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
)

// tunnelFollower keeps the program up to date with the node's tunnels.
type tunnelFollower struct {
	kernel  Interfaces
	sweeper *sweeper
	log     logr.Logger

	mu      sync.Mutex // held from reading the tunnels to writing them: an older list must not replace a newer one
	written bool       // the last write succeeded
	inForce atomic.Pointer[inspect.Tunnels]
}

// current returns the tunnels in force.
func (f *tunnelFollower) current() *inspect.Tunnels {
	if t := f.inForce.Load(); t != nil {
		return t
	}
	return &inspect.Tunnels{}
}

// run follows tunnels until the context is done.
func (f *tunnelFollower) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.kernel.WatchTunnels(ctx, f.refresh)
		if err == nil {
			continue
		}
		f.log.Error(err, "Cannot watch the node's tunnels; retrying", "in", rewatch.String())
		f.refresh()
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// refresh puts the node's tunnels in force. On an error the previous ones stay, and the next call retries.
func (f *tunnelFollower) refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.kernel.ReadTunnels()
	if err != nil {
		f.log.Error(err, "Cannot read the node's tunnels; the previous ones stay in use")
		return
	}
	before := f.current()
	if f.written && before.Equal(now) {
		return
	}
	f.written = false
	if err := f.kernel.SetTunnels(now); errors.Is(err, dataplane.ErrSuperseded) {
		return // the writer ends the agent
	} else if err != nil {
		f.log.Error(err, "Cannot write the node's tunnels to the kernel; the agent retries")
		return
	}
	f.written = true
	f.inForce.Store(now)
	if !before.Empty() || !now.Empty() {
		f.log.Info("Only the ends of tunnels may send encapsulated packets", "ports", now.Ports, "protocols", now.Protocols, "ends", len(now.Ends))
		f.sweeper.add(narrowed{everything: true})
	}
}
