package resolver

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Endpoint is what a policy's PolicyEndpoint should be.
type Endpoint struct {
	// Name of the PolicyEndpoint; Policy is the Key of the policy, and UID its own.
	Name, Policy types.NamespacedName
	UID          types.UID
	// Spec is the policy's, or an outline of it (see Options.Outlines). If the policy does not fit or cannot be read, it is the one
	// before, provided that it isolates the same pods in the same directions; else one without rules. So a policy's pods are isolated
	// whatever its state.
	Spec *v1alpha1.PolicyEndpointSpec
	// Groups that Spec refers to, sorted. They must be complete before Spec is written.
	Groups []policy.GroupKey
	// Problems are the parts of the policy that Spec lacks, the gravest first.
	Problems []Problem
	// IsPending is true from the start on until all of the policy is there: Spec is what an earlier resolver wrote, and the problems
	// are unknown.
	IsPending bool
}

// policyState is a policy, its PolicyEndpoint, and the named ports that it depends on.
type policyState struct {
	source     *Source
	normalized *normalized // nil, once it is rendered, if source is an outline
	endpoint   Endpoint
	// cluster is set for a ClusterNetworkPolicy. Of the other fields, it then has names, and of endpoint the names.
	cluster *clusterPolicy
	names   []nameUse
	// demands are those of the policy, charged those of its version in force. over is set if the policy is over the budget.
	demands, charged demands
	over             *Problem
	// asked is how many groups the demands are. Of a policy over the budget whose source is an outline, nothing else is kept of them.
	asked int
	// lost is set if the spec has to be written, and only an outline is left of it.
	lost bool
}

// nameUse is a named port whose numbers a policy depends on, of a matcher's pods that have an address in a
// block.
type nameUse struct {
	matcher *matcher
	name    portName
	within  string
}

func (r *Resolver) newPolicy(np *Source, n *normalized) *policyState {
	own := types.NamespacedName{Namespace: np.Namespace, Name: np.Name}
	name := types.NamespacedName{Namespace: np.Namespace, Name: endpointName(np.kind, own, np.UID)}
	d := r.demandsOf(np.Namespace, n)
	return &policyState{source: np, normalized: n, demands: d, asked: d.groups(), endpoint: Endpoint{Name: name, Policy: np.Key(), UID: np.UID}}
}

func (r *Resolver) setPolicy(p PreparedPolicy) {
	if r.filling != nil && r.filling.policy.source != p.policy {
		r.stopFilling()
	}
	var state *policyState
	if r.filling != nil {
		state = r.filling.policy
	} else {
		state = r.newPolicy(p.policy, p.normalized)
	}
	gaveFree := r.putPolicy(state)
	r.admitWaiting(p.policy.Namespace, gaveFree || state.over == nil)
	r.stopFilling()
}

// putPolicy puts a policy in the place of the one of the same name, if any. gaveFree reports whether that may have made room in the
// budget of the namespace.
func (r *Resolver) putPolicy(p *policyState) (gaveFree bool) {
	key, t := p.endpoint.Policy, r.tenant(p.source.Namespace)
	old := r.policies[key]
	r.policies[key] = p
	r.endpoints[p.endpoint.Name] = p
	before := old
	if old != nil {
		t.refund(old.charged)
		if old.endpoint.Name != p.endpoint.Name { // another policy under the same name
			before = nil
		}
	}
	if p.over = r.exceeds(p, func() demands { return r.inForce(p, before) }); p.over == nil {
		delete(t.waiting, key)
		r.watchNames(p)
	} else {
		t.waiting[key] = p
	}
	// What the old version used is released last, so that groups of both versions stay.
	r.render(p, before)
	t.charge(p.charged)
	switch {
	case old == nil:
	case before != nil:
		r.unwatch(old)
	default:
		r.forgetPolicy(old)
	}
	if p.source.IsOutline() {
		if p.normalized = nil; p.over != nil {
			p.demands = nil
		}
	}
	return old != nil && !old.charged.within(p.charged)
}

// inForce returns the demands of the version of a policy that is in force. old is its state before, or nil.
func (r *Resolver) inForce(p, old *policyState) demands {
	switch {
	case old != nil:
		return old.charged
	case r.existing != nil:
		return r.existing.demands(r, p)
	}
	return nil
}

// watchNames makes a policy depend on the numbers of its named ports.
func (r *Resolver) watchNames(p *policyState) {
	for _, name := range p.normalized.names {
		r.watch(p, &podSet{pods: p.normalized.selects}, name)
	}
	for _, peer := range p.normalized.peers[policy.Egress] {
		if peer.name != (portName{}) {
			r.watch(p, peer.peer.pods, peer.name)
		}
	}
}

func (r *Resolver) deletePolicy(key types.NamespacedName) {
	if p, ok := r.policies[key]; ok {
		delete(r.policies, key)
		t := r.tenant(key.Namespace)
		t.refund(p.charged)
		delete(t.waiting, key)
		r.forgetPolicy(p)
		r.admitWaiting(key.Namespace, len(p.charged) > 0)
	}
}

// render renders a policy's PolicyEndpoint and releases the groups that it used before. old is the state before, or nil.
func (r *Resolver) render(p, old *policyState) {
	var before Endpoint
	var had demands
	if old != nil {
		before, had = old.endpoint, old.charged
	}
	from := p.source.Namespace
	renderer := r.renderer(from)
	var out rendered
	if p.over == nil {
		out = renderer.render(p.source, p.normalized)
	} else {
		out = rendered{isolating: isolatingSpec(p.source, p.normalized), problems: sortProblems(append(slices.Clone(p.normalized.problems), *p.over))}
	}
	e := &p.endpoint
	e.Problems = out.problems
	if p.normalized.hasNames() {
		e.Problems = sortProblems(append(e.Problems, r.problemsOfNames()...))
	}
	spec, groups := out.spec, out.groups
	p.charged = p.demands
	if spec == nil {
		p.charged = nil
	}
	if spec == nil && r.existing != nil {
		spec, groups = r.existing.inForce(e.Name, &renderer)
		p.charged = r.demandsOfGroups(from, groups)
	}
	if spec != nil && !Isolates(spec, out.isolating) {
		spec, groups, p.charged = nil, nil, nil
	}
	if spec == nil && before.Spec != nil && !old.lost && Isolates(before.Spec, out.isolating) {
		e.Spec, e.Groups, p.charged = before.Spec, before.Groups, had
	} else {
		if spec == nil {
			spec, groups = out.isolating, nil
		}
		e.Spec, e.Groups = spec, r.acquireAll(from, groups)
		for _, g := range before.Groups {
			r.release(g)
		}
	}
	if r.options.Outlines {
		e.Spec = Outline(e.Spec)
	}
	if !reflect.DeepEqual(before, *e) || old != nil && old.lost {
		r.changedEndpoints[e.Name] = struct{}{}
	}
}

// acquireAll acquires groups for a policy of a namespace, each once, and returns their keys, sorted.
func (r *Resolver) acquireAll(from string, groups []groupRef) (keys []policy.GroupKey) {
	slices.SortFunc(groups, func(a, b groupRef) int { return compareGroups(a.key, b.key) })
	for i, ref := range groups {
		if i == 0 || ref.key != groups[i-1].key {
			r.acquire(from, ref)
			keys = append(keys, ref.key)
		}
	}
	return keys
}

// renderer returns a renderer of the policies of a namespace.
func (r *Resolver) renderer(from string) renderer {
	return renderer{namespace: from, shared: r.options.SharedNamespace, collides: r.collides, numbers: func(set *podSet, name portName) portNumbers {
		return boundNumbers(r.matcher(from, set).names[name][set.withinKey()].numbers)
	}}
}

// renderStale renders the policies with a named port whose numbers changed.
func (r *Resolver) renderStale() {
	for _, p := range slices.SortedFunc(maps.Keys(r.stale), func(a, b *policyState) int { return compareNames(a.endpoint.Name, b.endpoint.Name) }) {
		switch {
		case p.cluster != nil:
			r.renderClusterPolicy(p, p)
		case p.source.IsOutline():
			r.again = append(r.again, p.source)
		default:
			r.render(p, p)
		}
	}
	clear(r.stale)
}

// watch makes a policy depend on the numbers of a named port.
func (r *Resolver) watch(p *policyState, set *podSet, name portName) {
	m := r.matcher(p.endpoint.Policy.Namespace, set)
	u := nameUse{m, name, set.withinKey()}
	c, ok := m.names[name][u.within]
	if !ok {
		c = &nameCount{within: set.within, numbers: countNumbers(r.pods(m), name, set.within), users: map[*policyState]struct{}{}}
		if m.names[name] == nil {
			m.names[name] = map[string]*nameCount{}
		}
		m.names[name][u.within] = c
	}
	c.users[p] = struct{}{}
	p.names = append(p.names, u)
}

func (r *Resolver) unwatch(p *policyState) {
	delete(r.stale, p)
	for _, u := range p.names {
		byBlock := u.matcher.names[u.name]
		c := byBlock[u.within]
		if c == nil {
			continue
		}
		if delete(c.users, p); len(c.users) > 0 {
			continue
		}
		if delete(byBlock, u.within); len(byBlock) == 0 {
			delete(u.matcher.names, u.name)
			r.dropMatcher(u.matcher)
		}
	}
}

// forgetPolicy releases everything that a policy uses, and removes its PolicyEndpoint.
func (r *Resolver) forgetPolicy(p *policyState) {
	r.unwatch(p)
	for _, g := range p.endpoint.Groups {
		r.release(g)
	}
	delete(r.endpoints, p.endpoint.Name)
	r.changedEndpoints[p.endpoint.Name] = struct{}{}
}
