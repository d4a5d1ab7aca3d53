package resolver

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy/application"
)

// Source is a policy of one namespace: a NetworkPolicy, or an ApplicationNetworkPolicy as one, with the domain names that its egress rules have
// besides. It must not be changed.
type Source struct {
	*networkingv1.NetworkPolicy
	kind string
	// names are the domain names of egress rules, by the index of the rule. A rule with names and no other peer matches no other address.
	names map[int][]string
}

// NetworkPolicy returns a NetworkPolicy as a Source.
func NetworkPolicy(np *networkingv1.NetworkPolicy) *Source {
	return &Source{NetworkPolicy: np, kind: policyKind}
}

// ApplicationPolicy returns an ApplicationNetworkPolicy as a Source.
func ApplicationPolicy(p *application.Policy) *Source {
	np, names := p.Split()
	return &Source{NetworkPolicy: np, kind: application.Kind, names: names}
}

// Key identifies the policy among those of all kinds: an ApplicationNetworkPolicy may have the name of a NetworkPolicy.
func (s *Source) Key() types.NamespacedName { return KeyOf(s.kind, s.Namespace, s.Name) }

// KeyOf is the Key of a policy.
func KeyOf(kind, namespace, name string) types.NamespacedName {
	if kind != policyKind {
		name = kind + "/" + name
	}
	return types.NamespacedName{Namespace: namespace, Name: name}
}
