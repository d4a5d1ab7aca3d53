package oracle

import (
	"fmt"
	"net/netip"
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// judge says whether one direction of a flow is allowed.
type judge interface {
	judge(d policy.Direction, f policy.Flow) verdict
}

// verdict is what a judge says. why is empty from a judge that does not say it; else it is one of the two below, or the name of the
// first policy that allows the flow.
type verdict struct {
	allowed bool
	why     string
}

const (
	notIsolated = "not isolated"
	refused     = "refused"
)

func (v verdict) String() string {
	allowed := map[bool]string{true: "allowed", false: "denied"}[v.allowed]
	if v.why == "" {
		return allowed
	}
	return fmt.Sprintf("%s (%s)", allowed, v.why)
}

// agrees: two judges need not both say why.
func (v verdict) agrees(w verdict) bool {
	return v.allowed == w.allowed && (v.why == w.why || v.why == "" || w.why == "")
}

// clusterJudge asks the reference.
type clusterJudge struct{ *reference.NetworkPolicies }

func (j clusterJudge) judge(d policy.Direction, f policy.Flow) verdict {
	v := j.Evaluate(d, f)
	switch {
	case len(v.Isolating) == 0:
		return verdict{v.Allowed(), notIsolated}
	case v.Policy == nil:
		return verdict{v.Allowed(), refused}
	}
	return verdict{v.Allowed(), v.Policy.Namespace + "/" + v.Policy.Name}
}

// engineJudge evaluates PolicyEndpoints and slices.
type engineJudge struct {
	policies map[netip.Addr][]*policy.Policy // of the pod that has the address
	members  map[policy.GroupKey]map[netip.Prefix]bool
}

func newEngineJudge(k *kidoban) (*engineJudge, error) {
	j := &engineJudge{policies: map[netip.Addr][]*policy.Policy{}, members: map[policy.GroupKey]map[netip.Prefix]bool{}}
	listed, has := map[policy.GroupKey][]types.NamespacedName{}, map[policy.GroupKey][]types.NamespacedName{}
	for name, s := range k.slices {
		slice, err := readSlice(name.Namespace, &s)
		if err != nil {
			return nil, fmt.Errorf("slice %s: %w", name, err)
		}
		if len(s.Addresses) > sliceSize {
			return nil, fmt.Errorf("slice %s has %d addresses", name, len(s.Addresses))
		}
		for key, part := range slice {
			if j.members[key] == nil {
				j.members[key] = map[netip.Prefix]bool{}
			}
			has[key], listed[key] = append(has[key], name), append(listed[key], part.slices...)
			for _, p := range part.members {
				if j.members[key][p] {
					return nil, fmt.Errorf("%s stands twice in group %s", p, key)
				}
				j.members[key][p] = true
			}
		}
	}
	for key, names := range has {
		slices.SortFunc(names, compareNames)
		if slices.SortFunc(listed[key], compareNames); !slices.Equal(names, listed[key]) {
			return nil, fmt.Errorf("group %s is in the slices %v and lists %v", key, names, listed[key])
		}
	}
	var endpoints []*endpoint
	for _, name := range sortedNames(k.endpoints) {
		e, err := parseEndpoint(k.endpoints[name])
		if err != nil {
			return nil, err
		}
		for d := range e.policy.Rules {
			for _, r := range e.policy.Rules[d] {
				for _, p := range r.Peers {
					if _, ok := j.members[p.Group]; !ok && !p.CIDR.IsValid() {
						return nil, fmt.Errorf("%s refers to group %s, which is not there", name, p.Group)
					}
				}
			}
		}
		endpoints = append(endpoints, e)
	}
	for _, pod := range k.objects.pods {
		if policy.IsPeer(pod) {
			policies := selecting(endpoints, pod.Namespace, pod.Labels, policy.ContainerPorts(pod))
			for _, a := range policy.PodAddresses(pod) {
				j.policies[a] = policies
			}
		}
	}
	return j, nil
}

// Contains makes it a reference.Groups.
func (j *engineJudge) Contains(g policy.GroupKey, a netip.Addr) bool {
	return j.members[g][netip.PrefixFrom(a, a.BitLen())]
}

func (j *engineJudge) judge(d policy.Direction, f policy.Flow) verdict {
	return verdictOf(reference.Evaluate(d, j.policies[self(d, f)], f, j))
}

func verdictOf(v reference.Decision[policy.Policy]) verdict {
	switch {
	case v.Policy != nil:
		return verdict{v.Action == policy.Allow, v.Policy.ID.Namespace + "/" + v.Policy.ID.Name}
	case v.Tier == policy.TierNetworkPolicy:
		return verdict{v.Action == policy.Allow, refused}
	}
	return verdict{v.Action == policy.Allow, notIsolated}
}

func self(d policy.Direction, f policy.Flow) netip.Addr {
	if d == policy.Ingress {
		return f.Destination
	}
	return f.Source
}

// mapsJudge looks a flow up in the maps of every node: those where the pod is not must allow it.
type mapsJudge struct{ *kidoban }

func (j mapsJudge) judge(d policy.Direction, f policy.Flow) verdict {
	out := verdict{true, notIsolated}
	for _, a := range j.agents {
		if v := a.judge(d, f); v.why != notIsolated {
			out = v
		}
	}
	return out
}
