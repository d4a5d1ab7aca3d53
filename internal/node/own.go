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
// so keep the Baseline tier from deciding about it.
var allowsOwn = [2]*policy.Policy{policy.Ingress: allowOf(policy.Ingress), policy.Egress: allowOf(policy.Egress)}

func allowOf(d policy.Direction) *policy.Policy {
	p := &policy.Policy{ID: policy.ID{Kind: agentapi.KindEnforcingMode, Name: "own-node"}, Tier: policy.TierNetworkPolicy}
	p.Isolates[d] = true
	p.Rules[d] = []policy.Rule{{Action: policy.Allow, Everyone: true, EveryPort: true}}
	return p
}

// compileOwn gives the compiler a pod's second entry, which it has only while a cluster policy selects the pod.
func (n *Node) compileOwn(key types.NamespacedName, p *pod, spec compiler.PodSpec) {
	own := compiler.PodSpec{Flags: spec.Flags}
	for _, e := range p.endpoints {
		if e.active.namespaces != nil { // not as in mode strict, which does not concern this traffic
			own.Policies = append(own.Policies, e.active.policy.ForPod(p.ports))
		}
	}
	if len(own.Policies) == 0 {
		n.deleteOwn(key)
		return
	}
	isolated := [2]bool{}
	for _, np := range spec.Policies {
		for _, d := range policy.Directions {
			isolated[d] = isolated[d] || np.Tier == policy.TierNetworkPolicy && np.Isolates[d]
		}
	}
	for _, d := range policy.Directions {
		if isolated[d] {
			own.Policies = append(own.Policies, allowsOwn[d])
		}
	}
	slices.SortFunc(own.Policies, policy.Compare)
	for _, addr := range spec.Addresses {
		own.Addresses = append(own.Addresses, compiler.OwnAddress(addr))
	}
	n.own[key] = struct{}{}
	n.compiler.SetPod(ownKey(key), own)
}

func (n *Node) deleteOwn(key types.NamespacedName) {
	if _, ok := n.own[key]; ok {
		delete(n.own, key)
		n.compiler.DeletePod(ownKey(key))
	}
}

// JudgesOwn reports whether some pod's traffic to this node is to be judged.
func (n *Node) JudgesOwn() bool { return len(n.own) > 0 }
