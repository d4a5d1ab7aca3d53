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
	// SharedNamespace is the namespace of the slices of groups that cross namespaces.
	SharedNamespace string
	// MaxAddresses is the maximum number of addresses of a slice, from 1 to v1alpha1.MaxAddressesPerSlice.
	MaxAddresses int
	// Budget is that of each namespace.
	Budget Budget
	// Outlines makes the Resolver keep outlines of large specs of PolicyEndpoints, to be made whole when they have to be written.
	Outlines bool
}

// Resolver contains the namespaces, pods and policies of a cluster and the objects that follow from them. It
// is not safe for concurrent use.
//
// Before Start it only stores its input; Start resolves all of it at once.
type Resolver struct {
	options    Options
	namespaces map[string]*namespace
	scopes     map[string]*scope // those that cross namespaces, by the key of their selector
	scopeIndex index[*scope]
	policies   map[types.NamespacedName]*policyState
	endpoints  map[types.NamespacedName]*policyState // by the name of the PolicyEndpoint
	cluster    clusterPolicies
	groups     map[policy.GroupKey]*group
	space      *space
	announced  announced
	trusted    trustedResolvers
	tenants    map[string]*tenant // by namespace
	// podAddresses is the number of addresses of all pods that can be peers.
	podAddresses int

	// filling makes the groups of a policy that is not in force yet; fillAtOnce is that constant, but in tests.
	filling    *filling
	fillAtOnce int

	// started is set by Start; unresolved are the policies stored before it. existing is set during Start.
	started    bool
	unresolved map[types.NamespacedName]*Source
	existing   *existing

	// What the current change has made different so far.
	changedEndpoints map[types.NamespacedName]struct{}
	unused           map[policy.GroupKey]struct{} // groups that lost their last user
	again            []*Source
	stale            map[*policyState]struct{} // policies with a named port whose numbers changed
}

// Changes are the objects that one change made different, to be created, updated or deleted.
type Changes struct {
	// Endpoints are names of PolicyEndpoints, sorted.
	Endpoints []types.NamespacedName
	// ClusterEndpoints are names of ClusterPolicyEndpoints, sorted.
	ClusterEndpoints []string
	// Slices are sorted by name. A slice may be among them that changed back, when many addresses were placed at
	// once.
	Slices []SliceChange
	// Unused are groups that no policy uses any more. They stay in their slices until Forget.
	Unused []policy.GroupKey
	// Again are policies that are to be resolved once more: those over the budget of their namespace for which there may be room
	// now, and large ones of which something changed that they depend on. They are for Fill and SetPreparedPolicy, in this order.
	// Of those that are outlines, the caller gives the Resolver all that they have.
	Again []*Source
}

// SliceChange is a slice that became different.
type SliceChange struct {
	Name types.NamespacedName
	// Structure is true if the slice appeared or disappeared, if its groups or its lists of slices changed, or if
	// an address moved from or to another slice.
	Structure bool
	// Set is the same number for slices whose writes depend on each other, so that their order matters (see package
	// plan); 0 for a slice whose write depends on no other.
	Set int
}

// Stats counts the content of a Resolver.
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
		cluster:          newClusterPolicies(),
		groups:           map[policy.GroupKey]*group{},
		space:            newSpace(o.SharedNamespace, limits{o.MaxAddresses, v1alpha1.MaxGroupsPerSlice, v1alpha1.MaxGroupsOfClasses, maxLists}),
		announced:        newAnnounced(),
		trusted:          trustedResolvers{groups: map[uint16]trustedGroup{}},
		tenants:          map[string]*tenant{},
		fillAtOnce:       fillAtOnce,
		unresolved:       map[types.NamespacedName]*Source{},
		changedEndpoints: map[types.NamespacedName]struct{}{},
		unused:           map[policy.GroupKey]struct{}{},
		stale:            map[*policyState]struct{}{},
	}
}

// Start resolves the stored input and returns every object as changed. An address in an existing slice keeps
// its place, so that a restart changes nothing. If no part of a policy can be enforced, its existing version
// stays.
func (r *Resolver) Start(existing Existing) Changes {
	r.adopt(existing)
	r.setUnresolved()
	r.unresolved = nil
	r.setUnresolvedCluster()
	r.acquireReferred()
	r.placeTrusted()
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

// DeleteNamespace removes a namespace's labels: from then on only its own policies can select its pods.
func (r *Resolver) DeleteNamespace(name string) Changes {
	r.setNamespace(name, nil, false)
	return r.takeChanges()
}

// SetPod adds a pod or replaces it.
func (r *Resolver) SetPod(p Pod) Changes {
	r.setPod(p.Key, &p)
	return r.takeChanges()
}

// DeletePod removes a pod, if the Resolver has it.
func (r *Resolver) DeletePod(key types.NamespacedName) Changes {
	r.setPod(key, nil)
	return r.takeChanges()
}

// SetPolicy adds a policy or replaces it. The Resolver keeps the policy, which must not be changed
// afterwards. Before Start it may be an outline.
func (r *Resolver) SetPolicy(np *networkingv1.NetworkPolicy) Changes { return r.Set(NetworkPolicy(np)) }

// Set is SetPolicy for policies of all kinds.
func (r *Resolver) Set(s *Source) Changes {
	if !r.started {
		r.unresolved[s.Key()] = s
		return Changes{}
	}
	return r.SetPreparedPolicy(Prepare(s))
}

// PreparedPolicy is a policy with all that does not depend on a Resolver.
type PreparedPolicy struct {
	policy     *Source
	normalized *normalized
}

// Prepare does the part of SetPolicy that needs no Resolver, for SetPreparedPolicy.
func Prepare(s *Source) PreparedPolicy { return PreparedPolicy{s, normalize(s)} }

// SetPreparedPolicy is SetPolicy. The Resolver has started.
func (r *Resolver) SetPreparedPolicy(p PreparedPolicy) Changes {
	r.setPolicy(p)
	return r.takeChanges()
}

// DeletePolicy removes a policy by its Key, if the Resolver has it.
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

// EndpointName returns the name of the PolicyEndpoint of a policy with this Key, or false if the Resolver does not have the
// policy.
func (r *Resolver) EndpointName(np types.NamespacedName) (types.NamespacedName, bool) {
	p, ok := r.policies[np]
	if !ok {
		return types.NamespacedName{}, false
	}
	return p.endpoint.Name, true
}

// Slices returns the names of the slices of a group; none if there is no such group.
func (r *Resolver) Slices(group policy.GroupKey) []types.NamespacedName {
	g, ok := r.groups[group]
	if !ok {
		return nil
	}
	var out []types.NamespacedName
	for _, id := range r.space.groups[g.id].slices {
		out = append(out, r.space.slices[id].name())
	}
	return out
}

// Slice returns what a slice should be, or false if it should not be.
func (r *Resolver) Slice(name types.NamespacedName) (v1alpha1.PolicyEndpointSliceSpec, bool) {
	id, ok := r.space.find(name)
	if !ok {
		return v1alpha1.PolicyEndpointSliceSpec{}, false
	}
	return r.space.spec(id), true
}

// Forget removes a group from all slices, unless a policy uses it. The caller forgets unused groups when no
// PolicyEndpoint refers to them, also none that was not written yet when its policy's edit was reverted. A large group
// is removed in steps: it is unused again until the last. Other changes may come in between.
func (r *Resolver) Forget(group policy.GroupKey) Changes {
	if g, ok := r.groups[group]; ok && g.users == 0 {
		if r.drain(g) {
			r.unused[group] = struct{}{}
		} else {
			r.forget(g)
		}
	}
	return r.takeChanges()
}

// Stats counts the content of the Resolver.
func (r *Resolver) Stats() Stats {
	return Stats{Policies: len(r.policies) + len(r.cluster.policies), Groups: len(r.groups), Slices: len(r.space.slices), Addresses: r.space.places}
}

// takeChanges ends a change and returns the objects that it made different.
func (r *Resolver) takeChanges() Changes {
	if !r.started {
		return Changes{}
	}
	r.renderStale()
	r.space.flush()
	c := Changes{
		Endpoints:        slices.SortedFunc(maps.Keys(r.changedEndpoints), compareNames),
		ClusterEndpoints: r.cluster.takeChanged(), Slices: r.space.takeChanges(),
	}
	for _, key := range slices.SortedFunc(maps.Keys(r.unused), compareGroups) {
		if g, ok := r.groups[key]; ok && g.users == 0 {
			c.Unused = append(c.Unused, key)
		}
	}
	clear(r.changedEndpoints)
	clear(r.unused)
	c.Again, r.again = r.again, nil
	return c
}

func compareNames(a, b types.NamespacedName) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}

func compareGroups(a, b policy.GroupKey) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
}
