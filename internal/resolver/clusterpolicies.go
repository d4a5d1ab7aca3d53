package resolver

import (
	"maps"
	"reflect"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// ClusterEndpoint is what a ClusterNetworkPolicy's ClusterPolicyEndpoint should be.
type ClusterEndpoint struct {
	// Name of the ClusterPolicyEndpoint; Policy and UID are those of the policy.
	Name, Policy string
	UID          types.UID
	// Spec is the policy's. Rules that cannot be read are closed in it, so it always contains a version of the policy that
	// allows no more than its author meant.
	Spec *v1alpha1.ClusterPolicyEndpointSpec
	// Groups that Spec refers to, sorted. They must be complete before Spec is written.
	Groups []policy.GroupKey
	// Problems are the parts of the policy that Spec lacks, the gravest first.
	Problems []Problem
}

// clusterPolicy is a ClusterNetworkPolicy and its ClusterPolicyEndpoint.
type clusterPolicy struct {
	source     *cnp.ClusterNetworkPolicy
	normalized *normalizedCluster
	endpoint   ClusterEndpoint
}

// clusterPolicies are the ClusterNetworkPolicies of a cluster. Administrators write them, so no budget applies.
type clusterPolicies struct {
	policies   map[string]*policyState // by the policy's name
	endpoints  map[string]*policyState // by the name of the ClusterPolicyEndpoint
	unresolved map[string]*cnp.ClusterNetworkPolicy
	changed    map[string]struct{} // ClusterPolicyEndpoints that the current change made different so far
}

func newClusterPolicies() clusterPolicies {
	return clusterPolicies{
		policies: map[string]*policyState{}, endpoints: map[string]*policyState{},
		unresolved: map[string]*cnp.ClusterNetworkPolicy{}, changed: map[string]struct{}{},
	}
}

func (c *clusterPolicies) takeChanged() []string {
	out := slices.Sorted(maps.Keys(c.changed))
	clear(c.changed)
	return out
}

// SetClusterPolicy adds a ClusterNetworkPolicy or replaces it. The Resolver keeps the policy, which must not be changed
// afterwards.
func (r *Resolver) SetClusterPolicy(np *cnp.ClusterNetworkPolicy) Changes {
	if !r.started {
		r.cluster.unresolved[np.Name] = np
		return Changes{}
	}
	r.setClusterPolicy(np)
	return r.takeChanges()
}

// DeleteClusterPolicy removes a ClusterNetworkPolicy, if the Resolver has it.
func (r *Resolver) DeleteClusterPolicy(name string) Changes {
	delete(r.cluster.unresolved, name)
	if p, ok := r.cluster.policies[name]; ok {
		delete(r.cluster.policies, name)
		r.forgetClusterPolicy(p)
	}
	return r.takeChanges()
}

// ClusterEndpoint returns what the ClusterPolicyEndpoint of this name should be, or false if there should be none.
func (r *Resolver) ClusterEndpoint(name string) (ClusterEndpoint, bool) {
	p, ok := r.cluster.endpoints[name]
	if !ok {
		return ClusterEndpoint{}, false
	}
	return p.cluster.endpoint, true
}

// ClusterEndpointName returns the name of a ClusterNetworkPolicy's ClusterPolicyEndpoint, or false if the Resolver does not
// have the policy.
func (r *Resolver) ClusterEndpointName(np string) (string, bool) {
	p, ok := r.cluster.policies[np]
	if !ok {
		return "", false
	}
	return p.cluster.endpoint.Name, true
}

func (r *Resolver) setUnresolvedCluster() {
	for _, name := range slices.Sorted(maps.Keys(r.cluster.unresolved)) {
		r.setClusterPolicy(r.cluster.unresolved[name])
	}
	r.cluster.unresolved = nil
}

// setClusterPolicy puts a policy in the place of the one of the same name, if any.
func (r *Resolver) setClusterPolicy(np *cnp.ClusterNetworkPolicy) {
	key := types.NamespacedName{Name: np.Name}
	name := endpointName(clusterPolicyKind, key, np.UID)
	p := &policyState{
		endpoint: Endpoint{Name: types.NamespacedName{Name: name}, Policy: key, UID: np.UID},
		cluster:  &clusterPolicy{source: np, normalized: normalizeCluster(np), endpoint: ClusterEndpoint{Name: name, Policy: np.Name, UID: np.UID}},
	}
	old := r.cluster.policies[np.Name]
	r.cluster.policies[np.Name] = p
	r.cluster.endpoints[name] = p
	before := old
	if old != nil && old.cluster.endpoint.Name != name { // another policy under the same name
		before = nil
	}
	for i := range p.cluster.normalized.rules[policy.Egress] {
		r.watchRule(p, &p.cluster.normalized.rules[policy.Egress][i])
	}
	// What the old version used is released last, so that groups of both versions stay.
	r.renderClusterPolicy(p, before)
	switch {
	case old == nil:
	case before != nil:
		r.unwatch(old)
	default:
		r.forgetClusterPolicy(old)
	}
}

// watchRule makes a policy depend on the numbers that the peers of an egress rule give to its named ports.
func (r *Resolver) watchRule(p *policyState, rule *clusterRule) {
	for _, name := range rule.names {
		for i := range rule.peers {
			set := rule.peers[i].namedSet()
			if set == nil {
				continue
			}
			for _, protocol := range namedPortProtocols {
				r.watch(p, set, portName{protocol, name})
			}
		}
	}
}

// renderClusterPolicy renders a policy's ClusterPolicyEndpoint and releases the groups that it used before. old is the state
// before, or nil.
func (r *Resolver) renderClusterPolicy(p, old *policyState) {
	var before ClusterEndpoint
	if old != nil {
		before = old.cluster.endpoint
	}
	renderer := r.renderer("")
	out := renderer.renderCluster(p.cluster.source, p.cluster.normalized)
	e := &p.cluster.endpoint
	if p.cluster.normalized.hasNames() {
		out.problems = append(out.problems, r.problemsOfNames()...)
	}
	e.Spec, e.Problems, e.Groups = out.spec, sortProblems(out.problems), nil
	slices.SortFunc(out.groups, func(a, b groupRef) int { return compareGroups(a.key, b.key) })
	for i, ref := range out.groups {
		if i == 0 || ref.key != out.groups[i-1].key {
			r.acquire("", ref)
			e.Groups = append(e.Groups, ref.key)
		}
	}
	for _, g := range before.Groups {
		r.release(g)
	}
	if !reflect.DeepEqual(before, *e) {
		r.cluster.changed[e.Name] = struct{}{}
	}
}

// forgetClusterPolicy releases everything that a policy uses, and removes its ClusterPolicyEndpoint.
func (r *Resolver) forgetClusterPolicy(p *policyState) {
	r.unwatch(p)
	for _, g := range p.cluster.endpoint.Groups {
		r.release(g)
	}
	delete(r.cluster.endpoints, p.cluster.endpoint.Name)
	r.cluster.changed[p.cluster.endpoint.Name] = struct{}{}
}
