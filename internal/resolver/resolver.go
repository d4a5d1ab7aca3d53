package resolver

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Options of a Resolver.
type Options struct {
	// SharedNamespace is where the slices of groups that cross namespaces live.
	SharedNamespace string
	// MaxAddresses is the number of addresses of one slice at most, from 1 to v1alpha1.MaxAddressesPerSlice.
	MaxAddresses int
}

// Resolver holds what is known of the cluster and what it comes to. It is not safe for concurrent use.
//
// What is fed before Start is only remembered; Start resolves it all at once.
type Resolver struct {
	options    Options
	namespaces map[string]*namespace
	scopes     map[string]*scope // those that cross namespaces, by the key of their selector
	scopeIndex index[*scope]
	policies   map[types.NamespacedName]*policyState
	endpoints  map[types.NamespacedName]*policyState // by the name of the PolicyEndpoint
	groups     map[policy.GroupKey]*group
	// left are the slices of groups that nothing uses any more and that may still be there.
	left  map[policy.GroupKey][][]address
	stats Stats

	// started is set by Start; unresolved is what it starts from. existing is there during Start.
	started    bool
	unresolved map[types.NamespacedName]*networkingv1.NetworkPolicy
	existing   *Existing

	// What the change at hand has touched so far.
	changedEndpoints map[types.NamespacedName]struct{}
	changedSlices    map[SliceKey]struct{}
	stale            map[*policyState]struct{} // policies with a named port whose numbers changed
}

// SliceKey names a PolicyEndpointSlice.
type SliceKey struct {
	Group policy.GroupKey
	Index int32
}

// Changes are the objects that one change made different: that are to be created, updated or deleted.
type Changes struct {
	// Endpoints are names of PolicyEndpoints, sorted.
	Endpoints []types.NamespacedName
	// Slices are sorted by group and index.
	Slices []SliceKey
}

// Stats counts what a Resolver holds.
type Stats struct{ Policies, Groups, Slices, Addresses int }

// New returns an empty Resolver.
func New(o Options) *Resolver {
	return &Resolver{
		options:          o,
		namespaces:       map[string]*namespace{},
		scopes:           map[string]*scope{},
		scopeIndex:       newIndex[*scope](),
		policies:         map[types.NamespacedName]*policyState{},
		endpoints:        map[types.NamespacedName]*policyState{},
		groups:           map[policy.GroupKey]*group{},
		left:             map[policy.GroupKey][][]address{},
		unresolved:       map[types.NamespacedName]*networkingv1.NetworkPolicy{},
		changedEndpoints: map[types.NamespacedName]struct{}{},
		changedSlices:    map[SliceKey]struct{}{},
		stale:            map[*policyState]struct{}{},
	}
}

// Start resolves all that was fed so far and returns everything as changed. An address that is in one of the existing slices
// keeps its place, so that a restart makes nothing different; and where a policy cannot be honoured, the version that is in force stays.
func (r *Resolver) Start(existing Existing) Changes {
	r.existing = &existing
	for _, key := range slices.SortedFunc(maps.Keys(r.unresolved), compareNames) {
		r.setPolicy(r.unresolved[key])
	}
	r.unresolved = nil
	r.started = true
	for _, name := range slices.Sorted(maps.Keys(r.namespaces)) {
		ns := r.namespaces[name]
		for _, podName := range slices.Sorted(maps.Keys(ns.pods)) {
			p := ns.pods[podName]
			p.in = ns.matchers(p)
			r.movePod(nil, p)
		}
	}
	r.renderStale()
	for _, g := range r.groups {
		r.settle(g)
	}
	r.existing = nil
	return r.takeChanges()
}

// Started reports whether Start was called.
func (r *Resolver) Started() bool { return r.started }

// SetNamespace adds a namespace or changes its labels.
func (r *Resolver) SetNamespace(name string, labels map[string]string) Changes {
	r.setNamespace(name, labels, true)
	return r.takeChanges()
}

// DeleteNamespace forgets a namespace's labels: only selectors of its own policies select its pods from then on.
func (r *Resolver) DeleteNamespace(name string) Changes {
	r.setNamespace(name, nil, false)
	return r.takeChanges()
}

// SetPod adds a pod or replaces what is known of it.
func (r *Resolver) SetPod(p Pod) Changes {
	r.setPod(p.Key, &p)
	return r.takeChanges()
}

// DeletePod removes a pod; one that is not known is no error.
func (r *Resolver) DeletePod(key types.NamespacedName) Changes {
	r.setPod(key, nil)
	return r.takeChanges()
}

// SetPolicy adds a policy or replaces it. The policy is kept: it must not be changed afterwards.
func (r *Resolver) SetPolicy(np *networkingv1.NetworkPolicy) Changes {
	if !r.started {
		r.unresolved[types.NamespacedName{Namespace: np.Namespace, Name: np.Name}] = np
		return Changes{}
	}
	r.setPolicy(np)
	return r.takeChanges()
}

// DeletePolicy removes a policy; one that is not known is no error.
func (r *Resolver) DeletePolicy(key types.NamespacedName) Changes {
	delete(r.unresolved, key)
	r.deletePolicy(key)
	return r.takeChanges()
}

// Endpoint returns what the PolicyEndpoint of this name should be, or false if there should be none.
func (r *Resolver) Endpoint(name types.NamespacedName) (Endpoint, bool) {
	p, ok := r.endpoints[name]
	if !ok {
		return Endpoint{}, false
	}
	return p.endpoint, true
}

// EndpointName returns the name of a policy's PolicyEndpoint, or false if the policy is not known.
func (r *Resolver) EndpointName(np types.NamespacedName) (types.NamespacedName, bool) {
	p, ok := r.policies[np]
	if !ok {
		return types.NamespacedName{}, false
	}
	return p.endpoint.Name, true
}

// Slices returns the number of slices that a group should have; 0 for a group that nothing uses.
func (r *Resolver) Slices(group policy.GroupKey) int {
	g, ok := r.groups[group]
	if !ok {
		return 0
	}
	return len(g.placement.slices)
}

// Slice returns what a slice should be, or false if it should not be.
func (r *Resolver) Slice(key SliceKey) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	g, ok := r.groups[key.Group]
	if !ok || key.Index < 0 || int(key.Index) >= len(g.placement.slices) {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	return g.slice(key.Index), true
}

// Forget says that a group which nothing uses any more is swept. One that is used again before has its addresses where they were, for
// somebody may be reading it: a PolicyEndpoint that was not written yet when its policy's edit was taken back.
func (r *Resolver) Forget(group policy.GroupKey) { delete(r.left, group) }

// Stats counts what the Resolver holds.
func (r *Resolver) Stats() Stats {
	s := r.stats
	s.Policies, s.Groups = len(r.policies), len(r.groups)
	return s
}

// takeChanges ends a change.
func (r *Resolver) takeChanges() Changes {
	if !r.started {
		return Changes{}
	}
	r.renderStale()
	c := Changes{
		Endpoints: slices.SortedFunc(maps.Keys(r.changedEndpoints), compareNames),
		Slices: slices.SortedFunc(maps.Keys(r.changedSlices), func(a, b SliceKey) int {
			return cmp.Or(compareGroups(a.Group, b.Group), cmp.Compare(a.Index, b.Index))
		}),
	}
	clear(r.changedEndpoints)
	clear(r.changedSlices)
	return c
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

func compareGroups(a, b policy.GroupKey) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
