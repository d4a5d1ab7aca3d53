package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/node"
)

// heal attaches again what was detached. It does not look at the maps.
func (w *writer) heal() error {
	detached, err := w.kernel.Heal()
	if err == nil {
		err = w.followLocal()
	}
	w.unhealed = err
	if detached > 0 {
		w.log.Info("The program was detached by another process, and packets passed unchecked; attached it again", "links", detached)
		w.metrics.drift.WithLabelValues("links", "missing").Add(float64(detached))
		w.sweeper.add(narrowed{everything: true}) // flows that were opened meanwhile
	}
	return err
}

// repair heals, compares the maps with what they should hold and makes them equal.
func (w *writer) repair(ctx context.Context) error {
	if err := w.heal(); errors.Is(err, dataplane.ErrSuperseded) {
		return err
	}
	if w.behind {
		w.committed(w.state.commit(true)) // there may be no room for what is unused
		return errors.Join(w.unhealed, w.sync())
	}
	return errors.Join(w.unhealed, w.check(ctx))
}

// check compares the maps with what they should hold while no write is missing: a difference means that another process has changed them. Changes go
// on being written while the maps are read.
func (w *writer) check(ctx context.Context) error {
	if err := w.write(); err != nil {
		return err
	}
	drift, err := w.kernel.Sync(w.want, func() error { return w.writeMeanwhile(ctx) })
	w.observeDrift(drift)
	if ctx.Err() != nil {
		return nil
	}
	if err != nil {
		w.metrics.failures.Inc()
		return w.sync()
	}
	return nil
}

// writeMeanwhile writes what has changed since the last call, if anything has.
func (w *writer) writeMeanwhile(ctx context.Context) error {
	w.onRound()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.state.changed:
		return w.apply()
	default:
		return nil
	}
}

func (w *writer) observeDrift(drift dataplane.Drift) {
	for _, m := range drift {
		w.metrics.drift.WithLabelValues(m.Map, "missing").Add(float64(m.Missing))
		w.metrics.drift.WithLabelValues(m.Map, "wrong").Add(float64(m.Wrong))
		w.metrics.drift.WithLabelValues(m.Map, "extra").Add(float64(m.Extra))
	}
	if n := drift.Total(); n > 0 {
		w.log.Info("The kernel's maps differed from the policies and were repaired", "entries", n, "drift", drift)
	}
}

// sync makes the maps hold everything after a write has failed: they lack what the failed write had, so an incremental write could refer
// to what is not there.
func (w *writer) sync() error {
	if _, err := w.kernel.Sync(w.want, nil); err != nil {
		w.behind = true
		w.failClosed()
		return err
	}
	w.behind = false
	w.written(true)
	return nil
}

// failClosed isolates the pods whose policies are not in force.
func (w *writer) failClosed() {
	isolated, err := w.kernel.FailClosed(w.want)
	w.metrics.failClosed.Set(float64(isolated))
	if err != nil {
		w.log.Error(err, "Cannot isolate the pods whose policies are not in force")
		return
	}
	w.sweep() // what is denied now cannot begin anew
}

// noteFailure logs a failure when it begins, when it changes and when it is over.
func (w *writer) noteFailure(err error) {
	before := w.applied.lastFailure()
	if err == nil && before == nil {
		return
	}
	w.applied.setFailure(err)
	if err == nil {
		w.attempts = 0
		w.log.Info("Policies are in force again")
		return
	}
	w.attempts++
	w.metrics.failures.Inc()
	if before == nil || !sameFailure(before, err) {
		w.log.Error(err, "Cannot write the kernel's maps; the previous state stays in force and the agent retries")
	}
}

// sameFailure reports whether one log line is enough for two failures. A full map rejects another entry each time.
func sameFailure(a, b error) bool {
	var full, still *dataplane.MapFullError
	if errors.As(a, &full) && errors.As(b, &still) {
		return *full == *still
	}
	return a.Error() == b.Error()
}

func isFull(err error) bool {
	var full *dataplane.MapFullError
	return errors.As(err, &full)
}

// warn logs conditions under which traffic bypasses enforcement, when they begin and when they are over.
func (w *writer) warn() {
	now := w.kernel.Warnings()
	for _, warning := range now {
		if !slices.Contains(w.warnings, warning) {
			w.log.Info("Some traffic on this node may bypass enforcement", "warning", warning)
		}
	}
	for _, warning := range w.warnings {
		if !slices.Contains(now, warning) {
			w.log.Info("A warning is over", "warning", warning)
		}
	}
	w.warnings = now
	w.metrics.warnings.Set(float64(len(now)))
}

// reportProblems logs the policies that cost too much, when that begins and when it is over.
func (w *writer) reportProblems() {
	var now []compiler.Problem
	w.state.read(func(n *node.Node) { now = n.Problems() })
	for _, p := range now {
		if !slices.Contains(w.problems, p) {
			w.log.Info("A policy needs more of the node than there is for it; it isolates its pods and allows nothing", "policy", p.Policy.String(),
				"direction", p.Direction.String(), "resource", string(p.Resource), "needs", p.Figure, "limit", p.Limit)
		}
	}
	for _, p := range w.problems {
		if !slices.Contains(now, p) {
			w.log.Info("A policy does not need too much of the node any more", "policy", p.Policy.String(), "direction", p.Direction.String())
		}
	}
	w.problems = now
	w.metrics.observeProblems(now)
}

func backoff(attempts int) time.Duration {
	return min(30*time.Second, 100*time.Millisecond<<min(attempts, 10))
}
