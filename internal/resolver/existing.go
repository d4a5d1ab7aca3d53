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
	// Slices of each group, by index.
	Slices map[policy.GroupKey]map[int32]v1alpha1.PolicyEndpointSliceSpec
}

// inForce returns the version of a policy that an earlier resolver wrote, and its groups; nil if there is
// none.
func (e *Existing) inForce(name types.NamespacedName, r *renderer) (*v1alpha1.PolicyEndpointSpec, []groupRef) {
	spec := e.Endpoints[name]
	if spec == nil {
		return nil, nil
	}
	var groups []groupRef
	for _, key := range policy.GroupKeys(r.namespace, r.shared, spec.Ingress, spec.Egress) {
		first := e.Slices[key][0]
		if len(first.Groups) == 0 {
			continue
		}
		if set, port, ok := parseGroup(first.Groups[0].Selector); ok {
			if ref := r.ref(set, port); ref.key == key {
				groups = append(groups, ref)
			}
		}
	}
	return spec, groups
}

// parseGroup reads the selector of a slice, from which its group was resolved.
func parseGroup(s *v1alpha1.GroupSelector) (set *podSet, port *policy.NamedPort, ok bool) {
	if s == nil {
		return nil, nil, false
	}
	set = &podSet{}
	var err error
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
