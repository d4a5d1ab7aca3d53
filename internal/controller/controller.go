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
	"github.com/kidoban/kidoban/internal/controller/plan"
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

// workers is the number of requests that are reconciled at a time.
const workers = 16

// maxPause is the longest time until the controller repeats a write that failed.
const maxPause = 10 * time.Second

// Options of the controller.
type Options struct {
	Resolver resolver.Options
	// BatchWindow is the least time between two writes of one group. The first change goes out at once;
	// changes during the window go out together at its end.
	BatchWindow time.Duration
}

// request names what to reconcile: a PolicyEndpoint, its status, a group's slices, or a slice without the
// name that the controller gives it. start names nothing: any request starts the resolver first.
//
// The queue holds each request once and gives it to one worker at a time. A request that is added while it is
// reconciled is reconciled once more afterwards. So handlers add a request after they changed what it reads,
// and a worker reads the newest state under mu.
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

// Controller keeps PolicyEndpoints and slices what the resolver says they should be. All of it is one
// controller of the manager, so that no worker starts before every watch has delivered the existing objects.
type Controller struct {
	// client reads from the cache, and waits until the cache has seen its own writes.
	client client.Client
	// live reads from the API server, after a conflict: the cache does not contain objects that have lost the
	// controller's label.
	live     client.Reader
	recorder recorder.EventRecorder
	shared   string // the namespace of groups that cross namespaces
	queue    queue

	// writing are held while slices of a group are written; see groupLocks for the order of locks.
	writing groupLocks

	// mu guards what follows. It is never held during a request to the API server, and no other lock is taken
	// while it is held, except those inside the queue and the metrics.
	mu         sync.Mutex
	resolver   *resolver.Resolver
	groups     *plan.Groups
	unresolved unresolved
}

// Add makes a controller and adds it to the manager, whose cache and client must have CacheOptions and
// ClientOptions.
func Add(mgr manager.Manager, o Options) error {
	c := &Controller{
		client:     mgr.GetClient(),
		live:       mgr.GetAPIReader(),
		recorder:   mgr.GetEventRecorder(Name),
		shared:     o.Resolver.SharedNamespace,
		writing:    groupLocks{locks: map[policy.GroupKey]*groupLock{}},
		resolver:   resolver.New(o.Resolver),
		groups:     plan.NewGroups(o.BatchWindow),
		unresolved: unresolved{},
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

// describe adds the request, if any, to each log line: errors of the API server often lack the namespace.
func describe(log logr.Logger, r *request) logr.Logger {
	log = log.WithValues("controller", Name)
	if r != nil {
		log = log.WithValues("reconciles", r.kind, "object", klog.KRef(r.name.Namespace, r.name.Name))
	}
	return log
}

// ClientOptions are the options of the manager's client: a read returns its own earlier writes.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: new(true)}, FieldOwner: Name}
}

// Synced returns a check for /readyz: that every watch has delivered the existing objects. It starts the
// watches, on followers too.
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

// begin enqueues the first reconciliation, which happens when this instance leads and every watch has
// delivered.
func (c *Controller) begin(_ context.Context, q queue) error {
	c.queue = q
	q.Add(request{kind: start})
	return nil
}

// Reconcile makes one object, or one group's slices, what the resolver says they should be.
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
	case start:
	}
	return reconcile.Result{}, err
}

// startResolver resolves all that the watches have delivered, once, and enqueues every object of the
// controller's to be compared with it.
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
		Slices:    map[policy.GroupKey]map[int32]v1alpha1.PolicyEndpointSliceSpec{},
	}
	for i := range parts.Items {
		pes := &parts.Items[i]
		c.compare(c.queue, pes)
		if key, ok := plan.KeyOf(pes); ok {
			if existing.Slices[key.Group] == nil {
				existing.Slices[key.Group] = map[int32]v1alpha1.PolicyEndpointSliceSpec{}
			}
			existing.Slices[key.Group][key.Index] = pes.Spec
		}
	}
	for i := range endpoints.Items {
		pe := &endpoints.Items[i]
		name := client.ObjectKeyFromObject(pe)
		existing.Endpoints[name] = &pe.Spec
		c.groups.References.Set(name, c.groupsOf(pe))
		c.queue.Add(request{endpoint, name})
	}
	changes := c.resolve("start", func() resolver.Changes { return c.resolver.Start(existing) })
	c.enqueue(c.queue, changes, time.Time{})
	return nil
}

// resolve gives a change to the resolver and measures it. The caller holds mu.
func (c *Controller) resolve(input string, change func() resolver.Changes) resolver.Changes {
	begin := time.Now()
	changes := change()
	resolveSeconds.WithLabelValues(input).Observe(time.Since(begin).Seconds())
	setGauges(c.resolver.Stats())
	return changes
}

// enqueue enqueues changed objects: a PolicyEndpoint at once, a group at once or at the end of its window.
// seen is when the controller saw the pod's new address that is among the changes, or zero. The caller holds
// mu.
func (c *Controller) enqueue(q queue, changes resolver.Changes, seen time.Time) {
	for _, name := range changes.Endpoints {
		q.Add(request{endpoint, name})
	}
	for _, key := range changes.Slices {
		c.touch(q, key, seen)
	}
}

// compare enqueues a slice that is not what it should be. The caller holds mu.
func (c *Controller) compare(q queue, pes *v1alpha1.PolicyEndpointSlice) {
	key, ok := plan.KeyOf(pes)
	if !ok {
		q.Add(request{stray, client.ObjectKeyFromObject(pes)})
		return
	}
	if want, ok := c.resolver.Slice(key); !ok || !plan.IsSlice(pes, &want) {
		c.touch(q, key, time.Time{})
	}
}

// touch enqueues a slice's group, at once or at the end of its window. The caller holds mu.
func (c *Controller) touch(q queue, key resolver.SliceKey, seen time.Time) {
	q.AddAfter(request{group, types.NamespacedName(key.Group)}, c.groups.Touch(key, seen, time.Now()))
}
