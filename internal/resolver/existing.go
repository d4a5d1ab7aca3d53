package resolver

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// Existing contains the objects of earlier resolvers when one starts. It must not be changed afterwards.
type Existing struct {
	Endpoints map[types.NamespacedName]*v1alpha1.PolicyEndpointSpec
	// ClusterEndpoints are by the names of the ClusterPolicyEndpoints.
	ClusterEndpoints map[string]*v1alpha1.ClusterPolicyEndpointSpec
	// Slices with other names than those of a resolver are ignored.
	Slices map[types.NamespacedName]*v1alpha1.PolicyEndpointSliceSpec
}

// existing is what Start found.
type existing struct {
	Existing
	selectors map[policy.GroupKey]*v1alpha1.GroupSelector
	sizes     map[demandKey]int // of demands that were counted
}

// adopt gives the existing slices to the space.
func (r *Resolver) adopt(in Existing) {
	r.existing = &existing{in, map[policy.GroupKey]*v1alpha1.GroupSelector{}, map[demandKey]int{}}
	for name, spec := range in.Slices {
		if !IsSliceName(name.Name) {
			continue
		}
		for i := range spec.Groups {
			p := &spec.Groups[i]
			if key, _, ok := r.space.groupOf(name.Namespace, p); ok && p.Selector != nil {
				r.existing.selectors[key] = p.Selector
			}
		}
	}
	r.space.adopt(in.Slices)
}

// group returns one of the groups of an existing PolicyEndpoint, or false if its selector was not found.
func (e *existing) group(key policy.GroupKey, r *renderer) (groupRef, bool) {
	set, port, ok := parseGroup(e.selectors[key])
	if !ok {
		return groupRef{}, false
	}
	ref := r.ref(set, port)
	return ref, ref.key == key
}

// inForce returns the version of a policy that an earlier resolver wrote, and its groups; nil if there is
// none.
func (e *existing) inForce(name types.NamespacedName, r *renderer) (*v1alpha1.PolicyEndpointSpec, []groupRef) {
	spec := e.Endpoints[name]
	if spec == nil {
		return nil, nil
	}
	var groups []groupRef
	for _, key := range policy.GroupKeys(r.namespace, r.shared, spec.Ingress, spec.Egress) {
		if ref, ok := e.group(key, r); ok {
			groups = append(groups, ref)
		}
	}
	return spec, groups
}

// demands are those of a policy's version that an earlier resolver wrote.
func (e *existing) demands(r *Resolver, p *policyState) demands {
	_, groups := e.inForce(p.endpoint.Name, r.names(p.source.Namespace))
	return r.demandsOfGroups(p.source.Namespace, groups)
}

// acquireReferred makes the groups to which only existing PolicyEndpoints refer, so that they stay until the
// caller forgets them.
func (r *Resolver) acquireReferred() {
	for name, spec := range r.existing.Endpoints {
		r.acquireExisting(name.Namespace, spec.Ingress, spec.Egress)
	}
	for _, spec := range r.existing.ClusterEndpoints {
		r.acquireExisting("", spec.Ingress, spec.Egress)
	}
}

func (r *Resolver) acquireExisting(namespace string, rules ...[]v1alpha1.Rule) {
	names := r.names(namespace)
	for _, key := range policy.GroupKeys(namespace, r.options.SharedNamespace, rules...) {
		if _, ok := r.groups[key]; ok {
			continue
		}
		if ref, ok := r.existing.group(key, names); ok {
			r.acquire(namespace, ref)
			r.release(key)
		}
	}
}

// parseGroup reads the selector of a slice, from which its group was resolved.
func parseGroup(s *v1alpha1.GroupSelector) (set *podSet, port *policy.NamedPort, ok bool) {
	if s == nil {
		return nil, nil, false
	}
	set = &podSet{}
	var err error
	if s.NodeSelector != nil {
		set.nodes = true
		set.pods, err = parseSelector(s.NodeSelector)
		return set, nil, err == nil
	}
	if set.pods, err = parseSelector(s.PodSelector); err != nil {
		return nil, nil, false
	}
	if s.NamespaceSelector != nil {
		namespaces, err := parseSelector(s.NamespaceSelector)
		if err != nil {
			return nil, nil, false
		}
		set.namespaces = &namespaces
	}
	if s.IPBlock != nil {
		b := &networkingv1.IPBlock{CIDR: string(s.IPBlock.CIDR)}
		for _, e := range s.IPBlock.Except {
			b.Except = append(b.Except, string(e))
		}
		within, err := parseBlock(b)
		if err != nil {
			return nil, nil, false
		}
		set.within = &within
	}
	if s.Port != nil {
		number, known := protocolNumber(corev1.Protocol(s.Port.Protocol))
		if !known {
			return nil, nil, false
		}
		port = &policy.NamedPort{Protocol: number, Name: s.Port.Name, Port: uint16(s.Port.Port)}
	}
	return set, port, true
}
