package node

import (
	"slices"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

// ownKey is the compiler's key of a pod's second entry, for its traffic to its own node and to itself through a Service.
func ownKey(key types.NamespacedName) string { return key.String() + " own" }

// allowsOwn stands for the NetworkPolicies that isolate a pod in a direction: they allow its traffic to its own node and to itself, and
// so keep the Baseline tier from deciding about it. auditAllowsOwn stands for audited ones.
var allowsOwn, auditAllowsOwn = allowAll(false), allowAll(true)

func allowAll(audited bool) [2]*policy.Policy {
	return [2]*policy.Policy{policy.Ingress: allowOf(policy.Ingress, audited), policy.Egress: allowOf(policy.Egress, audited)}
}

func allowOf(d policy.Direction, audited bool) *policy.Policy {
	p := &policy.Policy{ID: policy.ID{Kind: agentapi.KindEnforcingMode, Name: "own-node"}, Tier: policy.TierNetworkPolicy, Audited: audited}
	p.Isolates[d] = true
	p.Rules[d] = []policy.Rule{{Action: policy.Allow, Everyone: true, EveryPort: true}}
	return p
}

// compileOwn gives the compiler a pod's second entry, which it has only while a cluster policy selects the pod.
func (n *Node) compileOwn(key types.NamespacedName, p *pod, spec compiler.PodSpec) {
	var cluster []*policy.Policy
	for _, e := range p.endpoints {
		if e.active.namespaces != nil { // not as in mode strict, which does not concern this traffic
			cluster = append(cluster, e.active.policy.ForPod(p.ports))
		}
	}
	if len(cluster) == 0 {
		n.deleteOwn(key)
		return
	}
	own := compiler.PodSpec{Flags: spec.Flags, Policies: ownPolicies(policy.Enforced(cluster), spec.Policies)}
	if len(spec.AuditPolicies) > 0 {
		own.AuditPolicies = ownPolicies(cluster, spec.AuditPolicies)
	}
	for _, addr := range spec.Addresses {
		own.Addresses = append(own.Addresses, compiler.OwnAddress(addr))
	}
	n.own[key] = struct{}{}
	n.compiler.SetPod(ownKey(key), own)
}

// ownPolicies returns the policies that judge a pod's traffic to its own node and to itself: the cluster's among those that select the pod, and what
// stands for the NetworkPolicies among these.
func ownPolicies(cluster, selecting []*policy.Policy) []*policy.Policy {
	out := slices.Clone(cluster)
	var isolated, audited [2]bool
	for _, p := range selecting {
		for _, d := range policy.Directions {
			isolates := p.Tier == policy.TierNetworkPolicy && p.Isolates[d]
			isolated[d] = isolated[d] || isolates && !p.Audited
			audited[d] = audited[d] || isolates && p.Audited
		}
	}
	for _, d := range policy.Directions {
		switch {
		case len(cluster) == 0:
		case isolated[d]:
			out = append(out, allowsOwn[d])
		case audited[d]:
			out = append(out, auditAllowsOwn[d])
		}
	}
	slices.SortFunc(out, policy.Compare)
	return out
}

func (n *Node) deleteOwn(key types.NamespacedName) {
	if _, ok := n.own[key]; ok {
		delete(n.own, key)
		n.compiler.DeletePod(ownKey(key))
	}
}

// JudgesOwn reports whether some pod's traffic to this node is to be judged.
func (n *Node) JudgesOwn() bool { return len(n.own) > 0 }
