package controller

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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
	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
	"github.com/kidoban/kidoban/internal/streamserver"
)

// +kubebuilder:rbac:groups="",resources=namespaces;nodes;pods;services,verbs=list;watch
// +kubebuilder:rbac:groups=authentication.k8s.io,resources=tokenreviews,verbs=create
// +kubebuilder:rbac:groups=discovery.k8s.io,resources=endpointslices,verbs=list;watch
// +kubebuilder:rbac:groups=networking.k8s.io,resources=networkpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=networking.kidoban.dev,resources=clusterpolicyendpoints;policyendpoints;policyendpointslices,verbs=get;list;watch;create;update;delete
// +kubebuilder:rbac:groups=networking.kidoban.dev,resources=clusterpolicyendpoints/status;policyendpoints/status,verbs=update
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=adminnetworkpolicies;baselineadminnetworkpolicies,verbs=list
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies,verbs=list;watch
// +kubebuilder:rbac:groups=policy.networking.k8s.io,resources=clusternetworkpolicies/status,verbs=patch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Name of the controller: of its lease, its events and its log lines.
const Name = "kidoban-controller"

// workers is the number of requests that are reconciled at a time.
const workers = 16

// reconcileTimeout ends a request that the API server does not answer, before it counts as one that makes no progress.
const reconcileTimeout = httpserver.StalledAfter - 30*time.Second

// maxPause is the longest time until the controller repeats a write that failed.
const maxPause = 10 * time.Second

// Options of the controller.
type Options struct {
	Resolver resolver.Options
	// BatchWindow is the least time between two writes of one slice. The first change goes out at once;
	// changes during the window go out together at its end.
	BatchWindow time.Duration
	// Progress, if set, records the work of the controller.
	Progress *Progress
	// Stream is where agents connect; nil: nowhere.
	Stream *StreamOptions
	// DroppedFields, if set, writes Events about CRDs that are older than the controller.
	DroppedFields *DroppedFields
	// TrustedResolvers are DNS servers whose answers count for the domain names of policies, beside those of the cluster's DNS.
	TrustedResolvers []netip.AddrPort
	// ApplicationPolicies: ApplicationNetworkPolicies are read, too, where the cluster has the kind.
	ApplicationPolicies bool
}

// request names what to reconcile: a PolicyEndpoint, its status, a slice, or one without a name that the controller
// gives. start names nothing: any request starts the resolver first.
//
// The queue holds each request once and gives it to one worker at a time. A request that is added while it is
// reconciled is reconciled once more afterwards. So handlers add a request after they changed what it reads,
// and a worker reads the newest state under mu.
type request struct {
	kind requestKind
	name types.NamespacedName
	// cause is the namespace of the object whose change made a slice dirty. Empty: the object's own namespace.
	cause string
}

// causedBy is the namespace that causes the request.
func (r request) causedBy() string { return cmp.Or(r.cause, r.name.Namespace) }

type requestKind string

const (
	start           requestKind = "start"
	endpoint        requestKind = "endpoint"
	clusterEndpoint requestKind = "cluster endpoint"
	status          requestKind = "status"
	sliceSet        requestKind = "slice"
	stray           requestKind = "stray"
	unusedGroup     requestKind = "unused group"
)

type queue = workqueue.TypedRateLimitingInterface[request]

// Controller keeps PolicyEndpoints and slices what the resolver says they should be. All of it is one
// controller of the manager, so that no worker starts before every watch has delivered the existing objects.
type Controller struct {
	// client reads from the cache, and waits until the cache has seen its own writes.
	client client.Client
	// live reads from the API server: large policies, of which the cache has outlines, and, after a conflict, objects that have lost
	// the controller's label, which the cache does not contain.
	live     client.Reader
	recorder recorder.EventRecorder
	shared   string // the namespace of groups that cross namespaces
	queue    queue
	progress *Progress

	known   *known
	dns     *dnsServers
	edits   *edits
	large   largeTurns
	agents  *Agents
	reports *reports
	server  *streamserver.Server // nil: agents cannot connect
	cluster *clusterPolicies

	applications *applications

	// mu guards what follows. It is never held during a request to the API server, and no other lock is taken
	// while it is held, except those inside the queue, dns and the metrics.
	mu         sync.Mutex
	resolver   *resolver.Resolver
	slices     *plan.Slices
	unresolved unresolved
	// waiting are the requests to be added when a slice is not being written any more.
	waiting map[types.NamespacedName]map[request]struct{}
	// ends are closed when a slice is not being written any more.
	ends map[types.NamespacedName]chan struct{}
}

// Add makes a controller and adds it to the manager, whose cache and client must have CacheOptions and
// ClientOptions.
func Add(mgr manager.Manager, o Options) error {
	o.Resolver.Outlines = true
	c := &Controller{
		client:     mgr.GetClient(),
		live:       mgr.GetAPIReader(),
		recorder:   mgr.GetEventRecorder(Name),
		shared:     o.Resolver.SharedNamespace,
		resolver:   resolver.New(o.Resolver),
		slices:     plan.NewSlices(o.Resolver.SharedNamespace, o.BatchWindow),
		unresolved: unresolved{},
		known:      newKnown(),
		dns:        newDNSServers(o.TrustedResolvers),
		edits:      newEdits(),
		reports:    newReports(),
		waiting:    map[types.NamespacedName]map[request]struct{}{},
		ends:       map[types.NamespacedName]chan struct{}{},
	}
	c.resolver.SetTrustedResolvers(c.dns.all())
	if o.DroppedFields != nil {
		o.DroppedFields.setRecorder(c.recorder)
	}
	c.agents = newAgents(c, mgr.GetLogger().WithName("agents"))
	if err := c.watchClusterPolicies(mgr); err != nil {
		return err
	}
	if err := c.watchApplications(mgr, o.ApplicationPolicies); err != nil {
		return err
	}
	if err := c.watchAdminPolicies(mgr); err != nil {
		return err
	}
	if o.Stream != nil {
		if err := c.serve(mgr, o.Stream); err != nil {
			return err
		}
	}
	c.progress = cmp.Or(o.Progress, &Progress{})
	c.progress.state = &c.mu
	ctrl, err := controller.NewTyped(Name, mgr, controller.TypedOptions[request]{
		Reconciler:              c,
		MaxConcurrentReconciles: workers,
		RateLimiter:             workqueue.NewTypedItemExponentialFailureRateLimiter[request](10*time.Millisecond, maxPause),
		NewQueue:                newQueue,
		EnableWarmup:            new(true), // a follower watches, so that it can lead at once
		ReconciliationTimeout:   reconcileTimeout,
		LogConstructor:          func(r *request) logr.Logger { return describe(mgr.GetLogger(), r) },
	})
	if err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(c.resolvePolicies)); err != nil {
		return err
	}
	caches := mgr.GetCache()
	for _, s := range []source.TypedSource[request]{
		source.TypedFunc[request](c.begin),
		source.TypedKind(caches, &corev1.Namespace{}, c.namespaces()),
		source.TypedKind(caches, &corev1.Pod{}, c.pods()),
		source.TypedKind(caches, &corev1.Node{}, c.known.watchNodes(c.nodeChanged)),
		source.TypedKind(caches, &corev1.Node{}, c.resolveNodes()),
		source.TypedKind(caches, &corev1.Service{}, c.known.watchServices()),
		source.TypedKind(caches, &corev1.Service{}, c.watchDNSServices()),
		source.TypedKind(caches, &discoveryv1.EndpointSlice{}, c.watchDNSEndpoints()),
		source.TypedKind(caches, &networkingv1.NetworkPolicy{}, c.policies()),
		source.TypedKind(caches, &v1alpha1.PolicyEndpoint{}, c.endpoints()),
		source.TypedKind(caches, &v1alpha1.ClusterPolicyEndpoint{}, c.clusterEndpoints()),
		source.TypedKind(caches, &v1alpha1.PolicyEndpointSlice{}, c.watchSlices()),
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
	c.mu.Lock()
	c.queue = q
	c.mu.Unlock()
	q.Add(request{kind: start})
	return nil
}

// Reconcile makes one object, or a slice and those that its write depends on, what the resolver says they should be.
func (c *Controller) Reconcile(ctx context.Context, r request) (reconcile.Result, error) {
	defer c.progress.begin(time.Now())()
	if err := c.startResolver(ctx); err != nil {
		return reconcile.Result{}, err
	}
	if r.kind == start {
		c.agents.lead()
		c.countNodes()
	}
	end, ok := c.large.begin(r, c.isLarge(r), c.queue)
	if !ok {
		return reconcile.Result{}, nil
	}
	defer end()
	var err error
	switch r.kind {
	case endpoint:
		err = c.reconcileEndpoint(ctx, r.name)
	case clusterEndpoint:
		err = c.reconcileClusterEndpoint(ctx, r.name.Name)
	case status:
		err = c.reconcileStatus(ctx, r.name)
	case sliceSet:
		err = c.writeSlices(ctx, r)
	case stray:
		err = c.delete(ctx, r.name, &v1alpha1.PolicyEndpointSlice{})
	case unusedGroup:
		c.forget(r)
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
	var list v1alpha1.PolicyEndpointSliceList
	var endpoints v1alpha1.PolicyEndpointList
	var clusterEndpoints v1alpha1.ClusterPolicyEndpointList
	for _, list := range []client.ObjectList{&list, &endpoints, &clusterEndpoints} {
		if err := c.client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return err
		}
	}
	existing := resolver.Existing{
		Endpoints:        map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec{},
		ClusterEndpoints: map[string]*v1alpha1.ClusterPolicyEndpointSpec{},
		Slices:           map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec{},
	}
	for i := range list.Items {
		pes := &list.Items[i]
		c.compare(c.queue, pes)
		existing.Slices[client.ObjectKeyFromObject(pes)] = &pes.Spec
	}
	for i := range endpoints.Items {
		pe := &endpoints.Items[i]
		name := client.ObjectKeyFromObject(pe)
		existing.Endpoints[name] = &pe.Spec
		c.slices.References.Set(name, c.groupsOf(pe))
		c.queue.Add(request{kind: endpoint, name: name})
	}
	for i := range clusterEndpoints.Items {
		cpe := &clusterEndpoints.Items[i]
		name := client.ObjectKeyFromObject(cpe)
		existing.ClusterEndpoints[name.Name] = &cpe.Spec
		c.slices.References.Set(name, policy.GroupKeys("", c.shared, cpe.Spec.Ingress, cpe.Spec.Egress))
		c.queue.Add(request{kind: clusterEndpoint, name: name})
	}
	for name, np := range c.edits.begin() {
		if np == nil {
			c.resolver.DeletePolicy(name)
		} else {
			c.resolver.Set(np)
		}
	}
	changes := c.resolve("start", func() resolver.Changes { return c.resolver.Start(existing) })
	c.enqueue(c.queue, changes, "", time.Time{})
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

// enqueue enqueues changed objects: a PolicyEndpoint at once, a slice at once or at the end of its window. cause is
// the namespace of the object whose change this is, or empty. seen is when the controller saw the pod's new address
// that is among the changes, or zero. The caller holds mu.
func (c *Controller) enqueue(q queue, changes resolver.Changes, cause string, seen time.Time) {
	for _, name := range changes.Endpoints {
		q.Add(request{kind: endpoint, name: name})
	}
	c.edits.addAgain(changes.Again)
	for _, name := range changes.ClusterEndpoints {
		q.Add(request{kind: clusterEndpoint, name: types.NamespacedName{Name: name}})
	}
	c.slices.Touch(changes.Slices, seen)
	for _, s := range changes.Slices {
		c.enqueueSlice(q, s.Name, cause)
	}
	for _, g := range changes.Unused {
		c.enqueueUnused(q, g, cause)
	}
}

// enqueueUnused enqueues a group that no policy uses, if no PolicyEndpoint refers to it. The caller holds mu.
func (c *Controller) enqueueUnused(q queue, g policy.GroupKey, cause string) {
	if !c.slices.References.Has(g) {
		q.Add(request{unusedGroup, types.NamespacedName{Namespace: g.Namespace, Name: g.Name}, cause})
	}
}

// forget removes a group to which no PolicyEndpoint refers from slices, unless a policy uses it. A large group is
// enqueued again until it is gone: others have their turn meanwhile.
func (c *Controller) forget(r request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := policy.GroupKey{Namespace: r.name.Namespace, Name: r.name.Name}
	if c.slices.References.Has(group) {
		return
	}
	changes := c.resolver.Forget(group)
	c.slices.Forgotten(group)
	c.enqueue(c.queue, changes, r.cause, time.Time{})
}

// compare enqueues a slice that is not what it should be. The caller holds mu.
func (c *Controller) compare(q queue, pes *v1alpha1.PolicyEndpointSlice) {
	name := client.ObjectKeyFromObject(pes)
	if !resolver.IsSliceName(name.Name) {
		q.Add(request{kind: stray, name: name})
		return
	}
	if want, ok := c.resolver.Slice(name); (!ok || !plan.IsSlice(pes, &want)) && c.slices.Differs(name) {
		c.enqueueSlice(q, name, "")
	}
}

// enqueueSlice enqueues a dirty slice, at once or at the end of its window. The caller holds mu.
func (c *Controller) enqueueSlice(q queue, name types.NamespacedName, cause string) {
	q.AddAfter(request{sliceSet, name, cause}, c.slices.Wait(name, time.Now()))
}
