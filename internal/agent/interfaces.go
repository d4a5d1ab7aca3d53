package agent

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/node"
)

// rewatch is the pause before links and routes are watched again after that failed.
const rewatch = 5 * time.Second

// interfaceFollower keeps the state up to date with the node's links and routes.
type interfaceFollower struct {
	kernel Interfaces
	state  *state
	log    logr.Logger

	mu sync.Mutex // held from reading the interfaces to taking them in: an older list must not replace a newer one
}

// run follows links and routes until the context is done.
func (f *interfaceFollower) run(ctx context.Context) {
	for ctx.Err() == nil {
		err := f.kernel.WatchInterfaces(ctx, func() { f.refresh(ctx) })
		if err == nil {
			continue
		}
		f.log.Error(err, "Cannot watch the node's interfaces; retrying", "in", rewatch.String())
		f.refresh(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(rewatch):
		}
	}
}

// refresh takes in the node's links and routes. On an error the previous ones stay.
func (f *interfaceFollower) refresh(ctx context.Context) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, err := f.kernel.ReadInterfaces()
	if err != nil {
		f.log.Error(err, "Cannot read the node's interfaces; the previous ones stay in use")
		return
	}
	f.state.update(ctx, func(at time.Time, n *node.Node) {
		if !now.Equal(n.Interfaces()) {
			n.SetInterfaces(at, now)
		}
	})
}
