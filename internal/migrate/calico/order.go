package calico

import (
	"cmp"
	"math"
	"slices"
)

// DefaultTier is the one of policies that name none, and of Kubernetes' own NetworkPolicies.
const DefaultTier = "default"

// KubernetesOrder is the order of Kubernetes' NetworkPolicies in the default tier.
const KubernetesOrder = 1000

// Tiers that Calico makes itself.
var builtinTiers = []Tier{
	{Name: "adminnetworkpolicy", Order: 1000, DefaultAction: Pass},
	{Name: "kube-admin", Order: 1000, DefaultAction: Pass},
	{Name: DefaultTier, Order: 1_000_000, DefaultAction: Deny},
	{Name: "baselineadminnetworkpolicy", Order: 10_000_000, DefaultAction: Pass},
	{Name: "kube-baseline", Order: 10_000_000, DefaultAction: Pass},
}

// Tier of a name; false where it is not in the set, so that its place is unknown.
func (s *Set) Tier(name string) (Tier, bool) {
	for _, t := range slices.Concat(s.Tiers, builtinTiers) {
		if t.Name == name {
			return t, true
		}
	}
	return Tier{Name: name, Order: math.Inf(1), DefaultAction: Deny}, false
}

// TierOrder are the tiers of these policies in the order of evaluation, and the default tier.
func (s *Set) TierOrder() []Tier {
	names := map[string]bool{DefaultTier: true}
	for i := range s.Policies {
		names[s.Policies[i].TierName()] = true
	}
	var out []Tier
	for name := range names {
		t, _ := s.Tier(name)
		out = append(out, t)
	}
	slices.SortFunc(out, func(a, b Tier) int { return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Name, b.Name)) })
	return out
}

// ComparePolicies orders the policies of one tier: by order, then by name. What Calico compares after equal orders is more than
// the name where kinds or namespaces differ, and not the same in all versions: callers must not rely on it there (SameOrder).
func ComparePolicies(a, b *Policy) int {
	return cmp.Or(cmp.Compare(a.Order(), b.Order()), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Kind, b.Kind))
}
