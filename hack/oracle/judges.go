package oracle

import (
	"fmt"
	"maps"
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
// policy that decides: "namespace/name", or "/name" of one without a namespace. tier is empty from a judge that does not say it, and for
// what is allowed.
type verdict struct {
	allowed bool
	why     string
	tier    string
}

const (
	notIsolated = "not isolated"
	refused     = "refused"
)

// allowedByDefault is the verdict where no policy decides.
var allowedByDefault = verdict{allowed: true, why: notIsolated}

// decided is the verdict of a policy's rule.
func decided(action policy.Action, tier policy.Tier, namespace, name string) verdict {
	v := verdict{allowed: action == policy.Allow, why: namespace + "/" + name}
	if !v.allowed {
		v.tier = tier.String()
	}
	return v
}

func (v verdict) String() string {
	allowed := map[bool]string{true: "allowed", false: "denied"}[v.allowed]
	for _, more := range [...]string{v.why, v.tier} {
		if more != "" {
			allowed += " (" + more + ")"
		}
	}
	return allowed
}

// agrees: two judges need not both say why.
func (v verdict) agrees(w verdict) bool {
	return v.allowed == w.allowed && (v.why == w.why || v.why == "" || w.why == "") && (v.tier == w.tier || v.tier == "" || w.tier == "")
}

// ownNode knows what traffic is between a pod and the node that it runs on.
type ownNode struct{ podNodes, nodes map[netip.Addr]string }

func ownNodeOf(c *reference.Cluster) ownNode {
	out := ownNode{map[netip.Addr]string{}, map[netip.Addr]string{}}
	for i := range c.Pods {
		if p := &c.Pods[i]; policy.IsPeer(p) {
			for _, a := range policy.PodAddresses(p) {
				out.podNodes[a] = p.Spec.NodeName
			}
		}
	}
	for i := range c.Nodes {
		for _, a := range c.Nodes[i].Status.Addresses {
			out.nodes[netip.MustParseAddr(a.Address)] = c.Nodes[i].Name
		}
	}
	return out
}

// of returns the node that one direction of a flow is about if the pod at that end runs there.
func (o ownNode) of(d policy.Direction, f policy.Flow) (string, bool) {
	node, ok := o.nodes[f.Peer(d)]
	return node, ok && o.podNodes[f.Self(d)] == node
}

// clusterJudge asks the reference.
type clusterJudge struct{ *reference.Cluster }

func (j clusterJudge) judge(d policy.Direction, f policy.Flow) verdict {
	v := j.Evaluate(d, f)
	switch np := v.NetworkPolicy; {
	case v.Tier == policy.TierAdmin:
		return decided(v.Action, v.Tier, "", v.Admin.Policy.Name)
	case v.Baseline != nil:
		return decided(v.Action, v.Tier, "", v.Baseline.Policy.Name)
	case v.Tier == policy.TierBaseline:
		return allowedByDefault
	case np.Policy != nil:
		return decided(v.Action, v.Tier, np.Policy.Namespace, np.Policy.Name)
	case v.Allowed(): // the own node is allowed whatever NetworkPolicies say
		return verdict{allowed: true}
	}
	return verdict{why: refused, tier: v.Tier.String()}
}

// engineJudge evaluates PolicyEndpoints and slices.
type engineJudge struct {
	own      ownNode
	policies map[netip.Addr][]*policy.Policy // of the pod that has the address
	members  map[policy.GroupKey]map[netip.Prefix]bool
	// ifEnforced asks what would be if audited policies were enforced.
	ifEnforced bool
}

func newEngineJudge(k *kidoban) (*engineJudge, error) {
	j := &engineJudge{own: ownNodeOf(k.objects.cluster()), policies: map[netip.Addr][]*policy.Policy{}, members: map[policy.GroupKey]map[netip.Prefix]bool{}}
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
		endpoints = append(endpoints, e)
	}
	for _, name := range slices.Sorted(maps.Keys(k.clusterEndpoints)) {
		e, err := parseClusterEndpoint(k.clusterEndpoints[name])
		if err != nil {
			return nil, err
		}
		endpoints = append(endpoints, e)
	}
	for _, e := range endpoints {
		for d := range e.policy.Rules {
			for _, r := range e.policy.Rules[d] {
				for p := range r.Peers.All() {
					if _, ok := j.members[p.Group]; !ok && !p.CIDR.IsValid() {
						return nil, fmt.Errorf("%s refers to group %s, which is not there", e.policy.ID, p.Group)
					}
				}
			}
		}
	}
	for _, pod := range k.objects.pods {
		if policy.IsPeer(pod) {
			var namespaceLabels map[string]string
			if ns := k.objects.namespaces[pod.Namespace]; ns != nil {
				namespaceLabels = ns.Labels
			}
			policies := selecting(endpoints, pod.Namespace, namespaceLabels, pod.Labels, policy.ContainerPorts(pod))
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
	policies := j.policies[f.Self(d)]
	if _, own := j.own.of(d, f); own {
		if d == policy.Ingress { // no program judges what the node opens
			return allowedByDefault
		}
		policies = ownPolicies(policies)
	}
	audit := reference.EvaluateAudit(d, policies, f, j, nil)
	if j.ifEnforced {
		return verdictOf(audit.All)
	}
	return verdictOf(audit.Enforced)
}

// ownPolicies are those that decide about a pod's traffic to its own node: those of the cluster, and one that allows everything where a
// NetworkPolicy isolates the pod.
func ownPolicies(policies []*policy.Policy) []*policy.Policy {
	var out []*policy.Policy
	for _, p := range policies {
		switch {
		case p.Tier != policy.TierNetworkPolicy:
			out = append(out, p)
		case p.Isolates[policy.Egress]:
			allow := *p
			allow.Rules[policy.Egress] = []policy.Rule{{Action: policy.Allow, Everyone: true, EveryPort: true}}
			out = append(out, &allow)
		}
	}
	return out
}

func verdictOf(v reference.Decision[policy.Policy]) verdict {
	switch {
	case v.Policy != nil:
		return decided(v.Action, v.Tier, v.Policy.ID.Namespace, v.Policy.ID.Name)
	case v.Tier == policy.TierNetworkPolicy:
		return verdict{why: refused, tier: v.Tier.String()}
	}
	return allowedByDefault
}

// mapsJudge looks a flow up in the maps of every node: those where the pod is not must allow it.
type mapsJudge struct {
	*kidoban
	own ownNode
	// ifEnforced asks what would be if audited policies were enforced.
	ifEnforced bool
}

func (j mapsJudge) judge(d policy.Direction, f policy.Flow) verdict {
	if node, own := j.own.of(d, f); own {
		if d == policy.Ingress { // no program judges what the node opens
			return allowedByDefault
		}
		return j.agents[node].judgeOwn(f, j.ifEnforced)
	}
	out := allowedByDefault
	for _, a := range j.agents {
		if v := a.judge(d, f, j.ifEnforced); v.why != notIsolated {
			out = v
		}
	}
	return out
}
