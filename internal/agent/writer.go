package agent

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"time"

	"github.com/go-logr/logr"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/inspect"
	"github.com/kidoban/kidoban/internal/node"
)

// writer takes changes from the state and writes them to the kernel, in one goroutine. All of its methods are that goroutine's.
//
// It reads want without the lock of state: only Commit and Collect change these maps, and only the writer calls them.
type writer struct {
	kernel  Kernel
	state   *state
	applied *applied
	sweeper *sweeper
	metrics *metrics
	log     logr.Logger
	want    *compiler.Maps

	revision  node.Revision // of the last commit
	unwritten narrowed      // by changes that are not in the kernel yet
	since     time.Time     // of the first event that is not in the kernel yet; zero without one
	behind    bool          // a write failed: the maps lack something that later changes may refer to
	unhealed  error         // of the last heal
	attempts  int           // that failed in a row
	warnings  []inspect.Warning
	problems  []compiler.Problem
	local     bool // the program judges traffic to the node itself
	readsOwn  bool // the program reads answers of resolvers on the node itself

	// What followResolvers last decided by, besides the node's addresses.
	resolvers map[netip.AddrPort]struct{}
	hasNames  bool

	collectDue chan struct{} // capacity 1
	onRound    func()
}

// takeOver fills the maps and attaches the program in place of an earlier agent's.
func (w *writer) takeOver() error {
	w.onRound()
	w.committed(w.state.start())
	_, failed := w.kernel.Sync(w.want, nil)
	if failed != nil {
		// The policies that an earlier agent left in force are better than isolating pods now, if another try may do better. One with
		// a full map does not: the earlier agent's program would judge new pods by nothing for ever.
		if alone, err := w.kernel.Alone(); !isFull(failed) && !alone || err != nil {
			return errors.Join(failed, err)
		}
		w.behind = true
		w.failClosed()
	}
	if err := w.followLocal(); err != nil {
		return err
	}
	if err := w.kernel.Attach(); err != nil {
		return err
	}
	w.applied.setInForce()
	w.unwritten.everything = true // it may have narrowed while no agent was here
	if w.noteFailure(failed); failed == nil {
		w.written(true)
	}
	return nil
}

// run keeps the kernel at what the state says until the context is done or another agent has taken over.
func (w *writer) run(ctx context.Context, checkInterval time.Duration) error {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	if <-retry.C; w.applied.lastFailure() != nil {
		retry.Reset(backoff(0))
	}
	for {
		w.onRound()
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-w.state.changed:
			err = errors.Join(w.unhealed, w.write())
		case <-w.collectDue:
			w.followResolvers() // the node's addresses may have changed
			if err = w.heal(); err == nil {
				if w.applied.lastFailure() != nil {
					continue // the retry is due
				}
				err = w.collect()
			}
		case <-check.C:
			w.warn()
			err = w.repair(ctx)
		case <-retry.C:
			err = w.repair(ctx)
		}
		if errors.Is(err, dataplane.ErrSuperseded) {
			return err
		}
		if w.noteFailure(err); err != nil {
			retry.Reset(backoff(w.attempts))
		}
	}
}

// committed records what the state has handed over.
func (w *writer) committed(n compiler.Narrowed, revision node.Revision, since time.Time) {
	w.revision = revision
	w.unwritten.add(n, since)
	if w.since.IsZero() {
		w.since = since
	}
	w.state.read(w.metrics.observe)
}

// write takes what changed to the kernel.
func (w *writer) write() error {
	if w.behind {
		w.committed(w.state.commit(false))
		return w.sync()
	}
	if err := w.apply(); err != nil {
		w.metrics.failures.Inc()
		return w.sync() // makes room first
	}
	return nil
}

func (w *writer) apply() error {
	changes, revision, since, more := w.state.step()
	w.committed(changes.Narrowed, revision, since)
	if err := w.kernel.Apply(changes); err != nil {
		w.behind = true
		return err
	}
	w.metrics.writes.Add(float64(changes.Len()))
	w.written(!more)
	if more {
		wake(w.state.changed)
	}
	return nil
}

// written records that the kernel holds what was committed last; all is whether that reaches its revision.
func (w *writer) written(all bool) {
	now := time.Now()
	w.metrics.failClosed.Set(0)
	if all && !w.since.IsZero() {
		w.metrics.programming.Observe(now.Sub(w.since).Seconds())
		w.since = time.Time{}
	}
	w.state.read(func(n *node.Node) {
		for _, d := range n.Applied(now, w.revision, all) {
			w.metrics.podStart.Observe(d.Seconds())
		}
	})
	if all {
		w.applied.setRevision(w.revision)
	} else {
		w.applied.wake()
	}
	if err := w.followLocal(); err != nil {
		w.log.Error(err, "Cannot judge traffic to the node itself; the agent retries")
	}
	if w.hasNames != (len(w.want.Domains) > 0) || !maps.Equal(w.resolvers, w.want.Resolvers) {
		w.followResolvers()
	}
	w.sweep()
}

// followLocal makes the program judge traffic to the node itself while some pod has an entry for it.
func (w *writer) followLocal() error {
	var judges bool
	w.state.read(func(n *node.Node) { judges = n.JudgesOwn() })
	if judges == w.local {
		return nil
	}
	if err := w.kernel.SetJudgesLocal(judges); err != nil {
		return err
	}
	w.local = judges
	return nil
}

// followResolvers makes the program read the answers of the node's own resolvers while policies have names and such a resolver is trusted.
func (w *writer) followResolvers() {
	reads, err := w.hasOwnResolver()
	if err == nil && reads != w.readsOwn {
		err = w.kernel.SetReadsOwn(reads)
	}
	if err != nil {
		w.log.Error(err, "Cannot read the answers of resolvers on the node itself; the agent retries")
		return
	}
	w.readsOwn, w.resolvers, w.hasNames = reads, maps.Clone(w.want.Resolvers), len(w.want.Domains) > 0
}

// hasOwnResolver reports whether policies have names and the node itself has an address of a trusted resolver.
func (w *writer) hasOwnResolver() (bool, error) {
	if len(w.want.Domains) == 0 {
		return false, nil
	}
	own, err := w.kernel.NodeAddresses()
	if err != nil {
		return false, err
	}
	for r := range w.want.Resolvers {
		if own[r.Addr()] {
			return true, nil
		}
	}
	return false, nil
}

// sweep hands what the kernel has narrowed to the sweeper: not before, or a flow that is cut begins anew.
func (w *writer) sweep() {
	w.sweeper.add(w.unwritten)
	w.unwritten = narrowed{}
}

// collect removes what is unused from the maps.
func (w *writer) collect() error {
	w.reportProblems()
	changes, ok := w.state.collect()
	if !ok {
		return nil // write first
	}
	w.metrics.writes.Add(float64(changes.Len()))
	if err := w.kernel.Apply(changes); err != nil {
		w.behind = true
		return err
	}
	return nil
}
