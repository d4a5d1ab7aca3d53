package controller

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/recorder"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// +kubebuilder:rbac:groups="",resources=namespaces;pods,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=networking.kidoban.dev,resources=policyendpoints;policyendpointslices,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=networking.kidoban.dev,resources=policyendpoints/status,verbs=update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Name of the controller: of its lease, its events and its log lines.
const Name = "kidoban-controller"

// workers is the number of objects that are written at a time.
const workers = 16

// maxPause is the longest time until a write that failed is tried again.
const maxPause = 10 * time.Second

// Options of the controller.
type Options struct {
	Resolver resolver.Options
	// BatchWindow is the least time between two writes of one group. The first change goes out at once; those that follow inside
	// the window go out together at its end.
	BatchWindow time.Duration
}

// request names what is to be reconciled: nothing yet, a PolicyEndpoint, its status, a group's slices, or a slice that has no name of ours.
type request struct {
	kind requestKind
	name types.NamespacedName
}

type requestKind string

const (
	start    requestKind = "start"
	endpoint requestKind = "endpoint"
	status   requestKind = "status"
	group    requestKind = "group"
	stray    requestKind = "stray"
)

type queue = workqueue.TypedRateLimitingInterface[request]

// Controller keeps the objects what they should be. All of it is one controller of the manager, so that no worker starts before
// every watch has delivered what was there.
type Controller struct {
	// client reads from the cache, and waits until the cache has seen its own writes.
	client client.Client
	// live reads from the API server what the cache does not show: objects that have lost our label, and after a conflict.
	live     client.Reader
	recorder recorder.EventRecorder
	window   time.Duration
	shared   string // the namespace of groups that cross namespaces
	queue    queue

	// mu guards what follows. No request to the API server is made while holding it.
	mu         sync.Mutex
	resolver   *resolver.Resolver
	groups     map[policy.GroupKey]*groupState
	references references
}

// Add makes a controller and adds it to the manager, whose cache and client must have CacheOptions and ClientOptions.
func Add(mgr manager.Manager, o Options) error {
	c := &Controller{
		client:     mgr.GetClient(),
		live:       mgr.GetAPIReader(),
		recorder:   mgr.GetEventRecorder(Name),
		window:     o.BatchWindow,
		shared:     o.Resolver.SharedNamespace,
		resolver:   resolver.New(o.Resolver),
		groups:     map[policy.GroupKey]*groupState{},
		references: newReferences(),
	}
	ctrl, err := controller.NewTyped(Name, mgr, controller.TypedOptions[request]{
		Reconciler:              c,
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[request](10*time.Millisecond, maxPause),
		EnableWarmup:            new(true), // a follower watches, so that it can lead at once
		ReconciliationTimeout:   2 * time.Minute,
		LogConstructor:          func(r *request) logr.Logger { return describe(mgr.GetLogger(), r) },
	})
	if err != nil {
		return err
	}
	caches := mgr.GetCache()
	for _, s := range []source.TypedSource[request]{
		source.TypedFunc[request](c.begin),
		source.TypedKind(caches, &corev1.Namespace{}, c.namespaces()),
		source.TypedKind(caches, &corev1.Pod{}, c.pods()),
		source.TypedKind(caches, &networkingv1.NetworkPolicy{}, c.policies()),
		source.TypedKind(caches, &v1alpha1.PolicyEndpoint{}, c.endpoints()),
		source.TypedKind(caches, &v1alpha1.PolicyEndpointSlice{}, c.slices()),
	} {
		if err := ctrl.Watch(s); err != nil {
			return err
		}
	}
	return nil
}

// describe has each line say which request it is about, if any: what the API server says of an object often lacks the namespace.
func describe(log logr.Logger, r *request) logr.Logger {
	log = log.WithValues("controller", Name)
	if r != nil {
		log = log.WithValues("reconciles", r.kind, "object", klog.KRef(r.name.Namespace, r.name.Name))
	}
	return log
}

// ClientOptions has the manager's client read what it wrote.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}, FieldOwner: Name}
}

// Synced returns a check for /readyz: that every watch has delivered what was there. It has the manager's cache start them, on
// followers too.
func Synced(ctx context.Context, caches cache.Cache) (func() error, error) {
	for _, obj := range watched() {
		if _, err := caches.GetInformer(ctx, obj, cache.BlockUntilSynced(false)); err != nil {
			return nil, fmt.Errorf("watch %T: %w", obj, err)
		}
	}
	return func() error {
		ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if !caches.WaitForCacheSync(ctx) {
			return fmt.Errorf("the caches are not in sync yet")
		}
		return nil
	}, nil
}

// begin asks for the first reconciliation, which happens when this instance leads and every watch has delivered.
func (c *Controller) begin(_ context.Context, q queue) error {
	c.queue = q
	q.Add(request{kind: start})
	return nil
}

// Reconcile makes one object, or one group's slices, what the resolver says.
func (c *Controller) Reconcile(ctx context.Context, r request) (reconcile.Result, error) {
	if err := c.startResolver(ctx); err != nil {
		return reconcile.Result{}, err
	}
	var err error
	switch r.kind {
	case endpoint:
		err = c.reconcileEndpoint(ctx, r.name)
	case status:
		err = c.reconcileStatus(ctx, r.name)
	case group:
		err = c.writeGroup(ctx, policy.GroupKey(r.name))
	case stray:
		err = c.delete(ctx, r.name, &v1alpha1.PolicyEndpointSlice{})
	}
	return reconcile.Result{}, err
}

// startResolver resolves all that the watches have delivered, once, and has every object of ours compared with it.
func (c *Controller) startResolver(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.resolver.Started() {
		return nil
	}
	var parts v1alpha1.PolicyEndpointSliceList
	var endpoints v1alpha1.PolicyEndpointList
	for _, list := range []client.ObjectList{&parts, &endpoints} {
		if err := c.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
	}
	existing := resolver.Existing{
		Endpoints: map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec{},
		Slices:    map[policy.GroupKey][]v1alpha1.PolicyEndpointSliceSpec{},
	}
	for i := range parts.Items {
		pes := &parts.Items[i]
		c.compare(c.queue, pes)
		if isNamedBySpec(pes) {
			key := groupOf(pes)
			existing.Slices[key] = append(existing.Slices[key], pes.Spec)
		}
	}
	for i := range endpoints.Items {
		pe := &endpoints.Items[i]
		name := client.ObjectKeyFromObject(pe)
		existing.Endpoints[name] = &pe.Spec
		c.references.set(name, c.groupsOf(pe))
		c.queue.Add(request{endpoint, name})
	}
	changes := c.resolve("start", func() resolver.Changes { return c.resolver.Start(existing) })
	c.enqueue(c.queue, changes, time.Time{})
	return nil
}

// resolve has the resolver take in a change and measures it. The caller holds mu.
func (c *Controller) resolve(input string, change func() resolver.Changes) resolver.Changes {
	begin := time.Now()
	changes := change()
	resolveSeconds.WithLabelValues(input).Observe(time.Since(begin).Seconds())
	setGauges(c.resolver.Stats())
	return changes
}

// enqueue has changed objects written: a PolicyEndpoint at once, a group at once or at the end of its window. seen is when a
// pod's new address that is among the changes was seen, or zero. The caller holds mu.
func (c *Controller) enqueue(q queue, changes resolver.Changes, seen time.Time) {
	for _, name := range changes.Endpoints {
		q.Add(request{endpoint, name})
	}
	for _, key := range changes.Slices {
		c.touch(q, key, seen)
	}
}

// compare has a slice written that is not what it should be. The caller holds mu.
func (c *Controller) compare(q queue, pes *v1alpha1.PolicyEndpointSlice) {
	if !isNamedBySpec(pes) {
		q.Add(request{stray, client.ObjectKeyFromObject(pes)})
		return
	}
	key := resolver.SliceKey{Group: groupOf(pes), Index: pes.Spec.Index}
	if want, ok := c.resolver.Slice(key); !ok || !isSlice(pes, &want) {
		c.touch(q, key, time.Time{})
	}
}

// touch has a slice written if need be. The caller holds mu.
func (c *Controller) touch(q queue, key resolver.SliceKey, seen time.Time) {
	g := c.group(key.Group)
	if g.seen.IsZero() {
		g.seen = seen
	}
	g.dirty[key.Index] = struct{}{}
	q.AddAfter(request{group, types.NamespacedName(key.Group)}, time.Until(g.written.Add(c.window)))
}
