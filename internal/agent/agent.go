package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/node"
)

// Options of an Agent.
type Options struct {
	// NamespaceCache makes the cache of one namespace's PolicyEndpoints and slices.
	NamespaceCache func(namespace string) (cache.Cache, error)
	// SharedNamespace is kidoban's own: it holds the groups that cross namespaces.
	SharedNamespace string
	// Policies says whether policies whose PolicyEndpoints are gone still exist; see NewPolicies. nil: they do not.
	Policies Policies
	// Audit counts and logs denials while the packets pass. A namespace's v1alpha1.LabelEnforcement overrides it.
	Audit bool
	// Mode applies to pods that no policy selects. Standard by default; the kernel's Dataplane must have been made with its GuardOf.
	Mode node.Mode
	// GuardBoot lets no pod start before the node's policies are in force, also in mode standard and while auditing.
	GuardBoot bool
	// Budget is what the policies on one pod may cost in one direction; compiler.DefaultBudget by default.
	Budget compiler.Cost
	// GuaranteedNamespaces have an equal share of the kernel's maps each; compiler.DefaultNamespaces by default.
	GuaranteedNamespaces int
	// RuleSeries limits the series of kidoban_agent_rule_hits_total; 0: it is not exported. The Dataplane must have been made with CountHits.
	RuleSeries int
	// Taint is removed from the node once policies are in force; nil: none is.
	Taint *NodeTaint
	// CheckInterval is how often the kernel's maps are compared with the policies, and repaired.
	CheckInterval time.Duration
	// NRISocket is where the container runtime listens for plugins; empty: the agent does not connect.
	NRISocket string
	// Stream announces new pods to the controller, and reports what is in force; nil: neither is done.
	Stream Stream
	// HoldTimeout is how long a pod's first container waits until the pod's addresses are known, counted from their announcement; 0: it does
	// not wait.
	HoldTimeout time.Duration
	Log         logr.Logger
	Registry    prometheus.Registerer
}

// Agent keeps the kernel of one node at what the API server says about its pods and about the namespaces that they are in.
type Agent struct {
	opts    Options
	kernel  Kernel
	metrics *metrics
	state   *state
	applied *applied
	writer  *writer
	sweeper *sweeper
	live    liveDenials
	hits    *hitCounter

	announcer *announcer // nil without a stream
	deleted   *deletedPolicies

	cache      cache.Cache // of the node's pods
	interfaces *interfaceFollower
	tunnels    *tunnelFollower
	cniPods    cniPods

	synced atomic.Bool               // the first lists of all watches are in the state
	round  atomic.Pointer[time.Time] // when the writer last came round
}

// New returns an Agent. The kernel's maps are its own from now on.
func New(c cache.Cache, kernel Kernel, opts Options) *Agent {
	patterns, last := kernel.Patterns()
	s := newState(node.Options{
		SharedNamespace: opts.SharedNamespace, Audit: opts.Audit, Mode: opts.Mode,
		DomainNames: kernel.LearnsNames(), Patterns: patterns, LastPattern: last,
		Budget: opts.Budget, Capacity: capacityOf(kernel), Namespaces: opts.GuaranteedNamespaces, ClusterPolicies: true,
	})
	a := &Agent{
		opts: opts, cache: c, kernel: kernel, state: s,
		metrics: newMetrics(opts.Registry, kernel),
		applied: newApplied(),
		cniPods: cniPods{interfaces: map[types.NamespacedName]uint32{}},
	}
	a.sweeper = &sweeper{kernel: kernel, names: kernel, state: s, metrics: a.metrics, log: opts.Log, kick: make(chan struct{}, 1)}
	a.hits = newHitCounter(kernel, s, opts.RuleSeries)
	a.deleted = &deletedPolicies{state: s, policies: opts.Policies, metrics: a.metrics, log: opts.Log, gone: make(chan struct{}, 1)}
	a.interfaces = &interfaceFollower{kernel: kernel, state: s, log: opts.Log}
	a.tunnels = &tunnelFollower{kernel: kernel, sweeper: a.sweeper, log: opts.Log}
	a.sweeper.tunnels = a.tunnels.current
	a.writer = &writer{
		kernel: kernel, state: s, applied: a.applied, sweeper: a.sweeper, metrics: a.metrics, log: opts.Log, want: s.node.Maps(),
		collectDue: make(chan struct{}, 1),
		onRound:    func() { now := time.Now(); a.round.Store(&now) },
	}
	if opts.Stream != nil {
		a.announcer = newAnnouncer(opts.Stream, opts.HoldTimeout, a.waitForMembers, a.metrics, opts.Log)
	}
	if opts.RuleSeries > 0 {
		opts.Registry.MustRegister(a.hits)
	}
	return a
}

// capacityOf is how many entries the kernel's maps can hold.
func capacityOf(kernel Counts) (capacity compiler.Usage) {
	fields := map[string]*int{"addresses": &capacity.Addresses, "networks": &capacity.Networks, "rows": &capacity.Rows, "ports": &capacity.Ports}
	for _, m := range kernel.Usage() {
		if field := fields[m.Map]; field != nil {
			*field = int(m.Max)
		}
	}
	return capacity
}

// Start puts the node's policies in force and keeps them so until the context is done. The policies that an earlier agent left stay in force
// until then: an API server that does not answer delays a start and opens nothing.
func (a *Agent) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait() // the caller may close the kernel's Dataplane afterwards
	defer cancel()

	a.writer.warn()
	a.interfaces.refresh(ctx)
	if a.guardsBoot() {
		a.followRuntimeIfAny(ctx) // also while the API server does not answer
	}
	running.Go(func() { a.followNamespaces(ctx) })
	running.Go(func() { a.followClusterPolicies(ctx) })
	running.Go(func() { a.deleted.run(ctx) })
	if err := a.watchPods(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := a.awaitPolicyEndpoints(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	a.interfaces.refresh(ctx)
	a.tunnels.refresh()
	a.synced.Store(true)
	if err := a.writer.takeOver(); err != nil {
		return fmt.Errorf("take over the node: %w", err)
	}
	var c node.Counts
	a.state.read(func(n *node.Node) { c = n.Counts() })
	a.opts.Log.Info("The agent's policies are in force", "pods", c.Pods, "policyEndpoints", c.Policies, "groups", c.Groups)
	running.Go(func() { a.sweeper.run(ctx) })
	running.Go(func() { every(ctx, collectInterval, a.housekeep) })
	running.Go(func() { every(ctx, forgetInterval, a.forgetNames) })
	go a.interfaces.run(ctx)
	unseen := &unseenFollower{kernel: a.kernel, state: a.state, metrics: a.metrics, log: a.opts.Log}
	running.Go(func() { unseen.run(ctx) })
	running.Go(func() { a.tunnels.run(ctx) })
	if a.opts.Taint != nil {
		go a.removeTaint(ctx)
	}
	if a.announcer != nil {
		defer a.announcer.stop()
		running.Go(func() { a.opts.Stream.Run(ctx, a.announcer) })
		running.Go(func() { a.report(ctx) })
	}
	if !a.guardsBoot() {
		a.followRuntimeIfAny(ctx)
	}
	return a.writer.run(ctx, a.opts.CheckInterval)
}

// collectInterval is how often what is unused is removed. A packet is decided in far less time.
const collectInterval = 5 * time.Second

// housekeep does what is due now and then.
func (a *Agent) housekeep(ctx context.Context) {
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.ForgetNames(now) })
	a.forgetCNIPods(ctx)
	a.isolateLate(ctx, node.GroupPatience)
	a.hits.count()
	wake(a.writer.collectDue)
}

// forgetInterval is how often expired names are removed. Until then they only take room.
const forgetInterval = 30 * time.Second

// forgetNames removes expired names.
func (a *Agent) forgetNames(context.Context) {
	if err := a.kernel.ForgetNames(); err != nil {
		a.opts.Log.Error(err, "Cannot remove expired domain names; the agent retries")
	}
}

// every calls f at each interval until the context is done.
func every(ctx context.Context, interval time.Duration, f func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f(ctx)
		}
	}
}

// isolateLate isolates the pods of policies whose groups have not arrived for so long.
func (a *Agent) isolateLate(ctx context.Context, patience time.Duration) {
	var late []types.NamespacedName
	a.state.update(ctx, func(now time.Time, n *node.Node) { late = n.IsolateLate(now, patience) })
	for _, key := range late {
		a.opts.Log.Info("Timed out waiting for a policy's address groups; isolating its pods with the addresses known so far",
			"policyEndpoint", key.String())
	}
}
