package controller

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// references knows which groups the PolicyEndpoints refer to, as they are on the API server or about to be: such a group is
// not swept.
type references struct {
	endpoints map[types.NamespacedName]map[policy.GroupKey]struct{}
	counts    map[policy.GroupKey]int
}

func newReferences() references {
	return references{endpoints: map[types.NamespacedName]map[policy.GroupKey]struct{}{}, counts: map[policy.GroupKey]int{}}
}

// add notes that a PolicyEndpoint may refer to these groups besides those that it refers to already.
func (r *references) add(endpoint types.NamespacedName, groups []policy.GroupKey) {
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

// set notes that a PolicyEndpoint refers to these groups only; none if it is gone. It returns those that nobody refers to any more.
func (r *references) set(endpoint types.NamespacedName, groups []policy.GroupKey) (unused []policy.GroupKey) {
	old := r.endpoints[endpoint]
	delete(r.endpoints, endpoint)
	if len(groups) > 0 {
		r.add(endpoint, groups)
	}
	for g := range old {
		if r.counts[g]--; r.counts[g] == 0 {
			delete(r.counts, g)
			unused = append(unused, g)
		}
	}
	return unused
}

func (r *references) has(group policy.GroupKey) bool { return r.counts[group] > 0 }
