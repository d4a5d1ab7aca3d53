package inforce

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// uses are the groups that policies refer to, in both directions.
type uses struct {
	groups   map[types.NamespacedName][]policy.GroupKey
	policies map[policy.GroupKey]map[types.NamespacedName]struct{}
}

func newUses() uses {
	return uses{groups: map[types.NamespacedName][]policy.GroupKey{}, policies: map[policy.GroupKey]map[types.NamespacedName]struct{}{}}
}

// SetGroups records the groups that a policy's newest version refers to; none if the policy is gone.
func (t *Tracker) SetGroups(key types.NamespacedName, groups []policy.GroupKey) {
	for _, g := range t.uses.groups[key] {
		if delete(t.uses.policies[g], key); len(t.uses.policies[g]) == 0 {
			delete(t.uses.policies, g)
		}
	}
	delete(t.uses.groups, key)
	if len(groups) == 0 {
		return
	}
	t.uses.groups[key] = groups
	for _, g := range groups {
		if t.uses.policies[g] == nil {
			t.uses.policies[g] = map[types.NamespacedName]struct{}{}
		}
		t.uses.policies[g][key] = struct{}{}
	}
}

// Holders returns the nodes that hold one of these groups: those with a pod of a policy that refers to it.
func (t *Tracker) Holders(groups ...[]policy.GroupKey) map[string]struct{} {
	out := map[string]struct{}{}
	for _, list := range groups {
		for _, g := range list {
			for key := range t.uses.policies[g] {
				if p := t.policy(key); p != nil {
					for node := range p.nodes {
						out[node] = struct{}{}
					}
				}
			}
		}
	}
	return out
}
