package netpol

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/policy"
)

// PolicyTypes returns the directions in which a NetworkPolicy isolates pods. Without policyTypes these are Ingress and, if the
// policy has egress rules, Egress.
func PolicyTypes(np *networkingv1.NetworkPolicy) (isolates [2]bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		isolates[policy.Ingress] = true
		isolates[policy.Egress] = len(np.Spec.Egress) > 0
		return isolates
	}
	isolates[policy.Ingress] = slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	isolates[policy.Egress] = slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	return isolates
}

// Selects reports whether a NetworkPolicy isolates a pod in direction d.
func Selects(d policy.Direction, np *networkingv1.NetworkPolicy, pod *corev1.Pod) bool {
	return np.Namespace == pod.Namespace && PolicyTypes(np)[d] && readSelector(&np.Spec.PodSelector).Matches(labels.Set(pod.Labels))
}

// Rule is a rule of a NetworkPolicy, of either direction.
type Rule struct {
	Peers []networkingv1.NetworkPolicyPeer
	Ports []networkingv1.NetworkPolicyPort
}

// Rules returns a NetworkPolicy's rules of direction d, in its order.
func Rules(d policy.Direction, np *networkingv1.NetworkPolicy) []Rule {
	var out []Rule
	if d == policy.Ingress {
		for i := range np.Spec.Ingress {
			out = append(out, Rule{np.Spec.Ingress[i].From, np.Spec.Ingress[i].Ports})
		}
		return out
	}
	for i := range np.Spec.Egress {
		out = append(out, Rule{np.Spec.Egress[i].To, np.Spec.Egress[i].Ports})
	}
	return out
}

// MatchesPorts reports whether one of a rule's ports is the flow's; a rule without ports matches all. In either direction, a
// named port is one of the pod at the flow's destination, target, which is nil if there is none.
func MatchesPorts(ports []networkingv1.NetworkPolicyPort, target *corev1.Pod, f policy.Flow) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		return matchesPort(&p, target, f)
	})
}

func matchesPort(p *networkingv1.NetworkPolicyPort, target *corev1.Pod, f policy.Flow) bool {
	switch {
	case policy.ProtocolOf(p.Protocol) != f.Protocol:
		return false
	case p.Port == nil:
		return true
	case p.Port.StrVal != "":
		return target != nil && slices.Contains(policy.ContainerPorts(target), policy.NamedPort{Protocol: f.Protocol, Name: p.Port.StrVal, Port: f.Port})
	case p.EndPort != nil:
		return p.Port.IntVal <= int32(f.Port) && int32(f.Port) <= *p.EndPort
	}
	return p.Port.IntVal == int32(f.Port)
}
