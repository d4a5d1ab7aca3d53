package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/kidoban/kidoban/internal/dataplane"
)

// Options of an Agent.
type Options struct {
	// NamespaceCache makes the cache of one namespace's PolicyEndpoints and slices.
	NamespaceCache func(namespace string) (cache.Cache, error)
	// SharedNamespace is where the groups are that cross namespaces: kidoban's own.
	SharedNamespace string
	// Audit has refusals counted and logged while the packets pass. A namespace's LabelEnforcement overrides it.
	Audit bool
	// Mode is what becomes of pods that no policy speaks of. Standard by default; the dataplane must have been made with its Guard.
	Mode Mode
	// RuleSeries is the most series of kidoban_agent_rule_hits_total; 0: it is not exported. The dataplane must have been made with CountHits.
	RuleSeries int
	// Taint is taken off the node once this agent judges; nil: nothing is.
	Taint *NodeTaint
	// CheckInterval is how often the kernel's maps are compared with what they should hold, and put right.
	CheckInterval time.Duration
	// NRISocket is where the container runtime listens for plugins; empty: none is asked.
	NRISocket string
	Log       logr.Logger
	Registry  prometheus.Registerer
}

// Agent feeds a node's dataplane from what the API server says about its pods and about the namespaces that they are in.
type Agent struct {
	opts    Options
	cache   cache.Cache // of the node's pods
	dp      *dataplane.Dataplane
	metrics *metrics
	watches map[string]context.CancelFunc // by namespace

	interfacesMu sync.Mutex // of reading the node's interfaces

	mu      sync.Mutex // of what follows, and of the order of writes to dp
	state   *state
	changed time.Time // of the first event since the last programming; zero when there was none
	told    uint64    // changes of the state so far
	landed  uint64    // of these, those that are in the kernel
	pending pending   // flows to look at

	kick      chan struct{}             // something changed; capacity 1
	sweepKick chan struct{}             // something was taken away; capacity 1
	synced    atomic.Bool               // the watches have told all that there was
	inForce   atomic.Bool               // this generation judges
	round     atomic.Pointer[time.Time] // of the loop, the last one
	hits      *hits                     // guarded by mu
	failure   atomic.Pointer[error]
	unhealed  error               // of the last time that heal was called
	attempts  int                 // that failed in a row
	warnings  []dataplane.Warning // as they were logged last
}

// What is unused is collected at this interval; a packet is judged in far less.
const collectInterval = 5 * time.Second

// New returns an Agent. The dataplane's maps are its own from now on.
func New(c cache.Cache, dp *dataplane.Dataplane, opts Options) *Agent {
	s := newState(opts.SharedNamespace)
	s.audit = opts.Audit
	s.mode = cmp.Or(opts.Mode, Standard)
	a := &Agent{
		opts: opts, cache: c, dp: dp,
		metrics: newMetrics(opts.Registry, dp),
		hits:    newHits(opts.RuleSeries),
		state:   s,
		watches: map[string]context.CancelFunc{},

		kick:      make(chan struct{}, 1),
		sweepKick: make(chan struct{}, 1),
	}
	if opts.RuleSeries > 0 {
		opts.Registry.MustRegister(hitCollector{a})
	}
	return a
}

// Start fills the dataplane with what there is, makes it the judge, and keeps it right until the context is done. What was in force before stays
// so until then: an API server that is away delays a start and opens nothing.
func (a *Agent) Start(ctx context.Context) error {
	a.warn()
	a.refreshInterfaces(ctx)
	if err := a.watch(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	a.refreshInterfaces(ctx)
	a.synced.Store(true)
	if err := a.takeOver(); err != nil {
		return fmt.Errorf("take over the node: %w", err)
	}
	return a.run(ctx)
}

func (a *Agent) takeOver() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.compiler.Commit()
	_, failed := a.dp.Sync(a.state.compiler.Maps(), nil)
	if failed != nil {
		// What an earlier agent left is better than what would be closed now.
		if alone, err := a.dp.Alone(); !alone || err != nil {
			return errors.Join(failed, err)
		}
		a.failClosed()
	}
	if err := a.dp.Attach(); err != nil {
		return err
	}
	a.metrics.observe(a.state)
	a.opts.Log.Info("This agent judges", "pods", len(a.state.pods), "policyEndpoints", len(a.state.policies), "groups", len(a.state.groups))
	a.inForce.Store(true)
	a.pending.everything = true // of what changed while no agent was here
	if a.noteFailure(failed); failed != nil {
		return nil
	}
	a.changed, a.landed = time.Time{}, a.told
	a.state.landed(time.Now())
	a.wakeSweep()
	return nil
}

func (a *Agent) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var sweeping sync.WaitGroup // who called may close the dataplane afterwards
	defer sweeping.Wait()
	defer cancel()
	sweeping.Go(func() { a.keepSwept(ctx) })
	go a.followInterfaces(ctx)
	if a.opts.Taint != nil {
		go a.removeTaint(ctx)
	}
	if a.opts.NRISocket != "" {
		go a.followRuntime(ctx)
	}
	collect := time.NewTicker(collectInterval)
	defer collect.Stop()
	check := time.NewTicker(a.opts.CheckInterval)
	defer check.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	if <-retry.C; a.failure.Load() != nil {
		retry.Reset(backoff(0))
	}
	for {
		now := time.Now()
		a.round.Store(&now)
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-a.kick:
			a.followNamespaces(ctx)
			err = errors.Join(a.unhealed, a.program())
		case <-collect.C:
			a.followNamespaces(ctx)
			if err = a.heal(); err == nil {
				if a.failure.Load() != nil {
					continue // repair is due
				}
				err = a.collect()
			}
		case <-check.C:
			a.warn()
			err = a.repair()
		case <-retry.C:
			err = a.repair()
		}
		if errors.Is(err, dataplane.ErrSuperseded) {
			return err
		}
		if a.noteFailure(err); err != nil {
			retry.Reset(backoff(a.attempts))
		}
	}
}

// program takes what changed to the kernel.
func (a *Agent) program() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	changes := a.state.compiler.Commit()
	a.pending.add(changes.Narrowed, a.changed)
	a.metrics.observe(a.state)
	if a.failure.Load() != nil {
		return a.sync() // the maps lack what failed before: an incremental change could refer to it
	}
	if err := a.dp.Apply(changes); err != nil {
		a.metrics.failures.Inc()
		return a.sync() // which makes room first
	}
	a.metrics.writes.Add(float64(changes.Len()))
	a.programmed()
	return nil
}

// collect frees what nothing uses any more.
func (a *Agent) collect() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state.forgetDeparted()
	if a.isolateLate(groupPatience) {
		a.stateChanged()
	}
	if !a.changed.IsZero() {
		return nil // program first
	}
	_ = a.countHits() // before their IDs are freed; a scrape says what is wrong
	changes := a.state.compiler.Collect()
	a.metrics.writes.Add(float64(changes.Len()))
	return a.dp.Apply(changes)
}

// heal puts back what somebody removed beside the maps.
func (a *Agent) heal() error {
	detached, err := a.dp.Heal()
	a.unhealed = err
	if detached > 0 {
		a.opts.Log.Info("Somebody detached the program, and packets were not judged; it is attached again", "links", detached)
		a.metrics.drift.WithLabelValues("links", "missing").Add(float64(detached))
		a.mu.Lock()
		defer a.mu.Unlock()
		a.pending.everything = true // of what was opened meanwhile
		a.wakeSweep()
	}
	return err
}

// repair heals, compares the kernel's maps with what they should hold, and puts them right.
func (a *Agent) repair() error {
	if err := a.heal(); errors.Is(err, dataplane.ErrSuperseded) {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pending.add(a.state.compiler.Commit().Narrowed, a.changed)
	if a.failure.Load() != nil {
		a.state.compiler.Collect() // there may be no room for what is unused
	}
	return errors.Join(a.unhealed, a.sync())
}

func (a *Agent) sync() error {
	healing := a.failure.Load() != nil // then a difference is no surprise
	drift, err := a.dp.Sync(a.state.compiler.Maps(), nil)
	for _, m := range drift {
		for _, difference := range []string{"missing", "wrong", "extra"} {
			a.metrics.drift.WithLabelValues(m.Map, difference) // from 0 on: increase() does not see a counter's first value
		}
	}
	if n := drift.Total(); n > 0 && !healing && a.changed.IsZero() {
		a.opts.Log.Info("The kernel's maps were not as they should have been and were put right", "entries", n, "drift", drift)
		for _, m := range drift {
			a.metrics.drift.WithLabelValues(m.Map, "missing").Add(float64(m.Missing))
			a.metrics.drift.WithLabelValues(m.Map, "wrong").Add(float64(m.Wrong))
			a.metrics.drift.WithLabelValues(m.Map, "extra").Add(float64(m.Extra))
		}
	}
	if err != nil {
		a.failClosed()
		return err
	}
	a.programmed()
	return nil
}

// failClosed closes the pods whose policies are not in force.
func (a *Agent) failClosed() {
	closed, err := a.dp.FailClosed(a.state.compiler.Maps())
	a.metrics.closed.Set(float64(closed))
	if err != nil {
		a.opts.Log.Error(err, "Cannot close pods whose policies are not in force")
		return
	}
	a.wakeSweep() // what is refused now cannot begin anew
}

func (a *Agent) programmed() {
	a.metrics.closed.Set(0)
	if !a.changed.IsZero() {
		a.metrics.programming.Observe(time.Since(a.changed).Seconds())
	}
	a.changed, a.landed = time.Time{}, a.told
	for _, d := range a.state.landed(time.Now()) {
		a.metrics.podStart.Observe(d.Seconds())
	}
	a.wakeSweep()
}

// noteFailure logs a failure when it begins, when it becomes another and when it is over.
func (a *Agent) noteFailure(err error) {
	was := a.failure.Load()
	if err == nil {
		if was != nil && a.failure.CompareAndSwap(was, nil) {
			a.attempts = 0
			a.opts.Log.Info("Policies are in force again")
		}
		return
	}
	a.attempts++
	a.metrics.failures.Inc()
	if was == nil || !sameFailure(*was, err) {
		a.opts.Log.Error(err, "Cannot write the kernel's maps; what was in force stays so, and it is tried again")
	}
	a.failure.Store(&err)
}

// sameFailure reports whether two failures are worth one line. A full map refuses another entry each time.
func sameFailure(a, b error) bool {
	var full, still *dataplane.MapFullError
	if errors.As(a, &full) && errors.As(b, &still) {
		return *full == *still
	}
	return a.Error() == b.Error()
}

// warn says what traffic of this node cannot be seen, when that begins and when it is over.
func (a *Agent) warn() {
	now := dataplane.Warnings()
	for _, w := range now {
		if !slices.Contains(a.warnings, w) {
			a.opts.Log.Info("This node may not be enforced wholly", "warning", w)
		}
	}
	for _, w := range a.warnings {
		if !slices.Contains(now, w) {
			a.opts.Log.Info("A warning does not hold any more", "warning", w)
		}
	}
	a.warnings = now
	a.metrics.warnings.Set(float64(len(now)))
}

func backoff(attempts int) time.Duration {
	return min(30*time.Second, 100*time.Millisecond<<min(attempts, 10))
}

// update changes the state under the lock, unless the context is done, and wakes the loop.
func (a *Agent) update(ctx context.Context, change func(*state)) {
	a.mu.Lock()
	if ctx.Err() != nil {
		a.mu.Unlock()
		return
	}
	change(a.state)
	a.stateChanged()
	a.mu.Unlock()
}

// stateChanged wakes the loop. The caller holds mu.
func (a *Agent) stateChanged() {
	a.told++
	if a.changed.IsZero() {
		a.changed = time.Now()
	}
	select {
	case a.kick <- struct{}{}:
	default:
	}
}
