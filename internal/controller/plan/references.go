package plan

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// References counts the PolicyEndpoints that refer to a group, on the API server or after a write that is
// planned.
type References struct {
	endpoints map[types.NamespacedName]map[policy.GroupKey]struct{}
	counts    map[policy.GroupKey]int
}

func newReferences() References {
	return References{endpoints: map[types.NamespacedName]map[policy.GroupKey]struct{}{}, counts: map[policy.GroupKey]int{}}
}

// Add records that a PolicyEndpoint may refer to these groups besides those that it refers to already.
func (r *References) Add(endpoint types.NamespacedName, groups []policy.GroupKey) {
	if r.endpoints[endpoint] == nil {
		r.endpoints[endpoint] = map[policy.GroupKey]struct{}{}
	}
	for _, g := range groups {
		if _, ok := r.endpoints[endpoint][g]; !ok {
			r.endpoints[endpoint][g] = struct{}{}
			r.counts[g]++
		}
	}
}

// Set records that a PolicyEndpoint refers to these groups only; none if it is gone. It returns the groups
// that have no reference any more.
func (r *References) Set(endpoint types.NamespacedName, groups []policy.GroupKey) (unused []policy.GroupKey) {
	old := r.endpoints[endpoint]
	delete(r.endpoints, endpoint)
	if len(groups) > 0 {
		r.Add(endpoint, groups)
	}
	for g := range old {
		if r.counts[g]--; r.counts[g] == 0 {
			delete(r.counts, g)
			unused = append(unused, g)
		}
	}
	return unused
}

// Has reports whether a PolicyEndpoint refers to a group.
func (r *References) Has(group policy.GroupKey) bool { return r.counts[group] > 0 }
