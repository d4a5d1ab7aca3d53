package reference

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// NetworkPolicies evaluates NetworkPolicies for the pods of a cluster, straight from the API objects and in the words of the
// documentation of networking.k8s.io/v1, without groups, slices or maps in between. `kubectl kidoban explain` quotes it. It
// walks all objects at each question. A policy that its label puts under audit has no say, unless EnforceAudited is set.
type NetworkPolicies struct {
	// EnforceAudited asks what would be decided if audited policies were enforced.
	EnforceAudited bool

	Namespaces []corev1.Namespace
	Pods       []corev1.Pod
	Policies   []networkingv1.NetworkPolicy
	// Names are the addresses that are known of DNS names, for all pods alike. Egress rules of ApplicationNetworkPolicies may have names.
	Names Names
}

// Allows reports whether a flow is allowed: both directions must allow it. "A pod cannot block access to itself."
func (n *NetworkPolicies) Allows(f policy.Flow) bool {
	return f.Source == f.Destination || n.Evaluate(policy.Egress, f).Allowed() && n.Evaluate(policy.Ingress, f).Allowed()
}

// Evaluate decides about one direction of a flow. An address that no pod has is not isolated.
func (n *NetworkPolicies) Evaluate(d policy.Direction, f policy.Flow) Decision[networkingv1.NetworkPolicy] {
	self, peer := f.Source, f.Destination
	if d == policy.Ingress {
		self, peer = f.Destination, f.Source
	}
	out := Decision[networkingv1.NetworkPolicy]{Action: policy.Allow, Tier: policy.TierBaseline}
	pod := n.PodAt(self)
	if pod == nil {
		return out
	}
	if out.Isolating = n.isolating(d, pod); len(out.Isolating) == 0 {
		return out
	}
	out.Tier = policy.TierNetworkPolicy
	for _, np := range out.Isolating {
		for i, r := range rulesOf(d, np) {
			matches := n.matchesPeers(np.Namespace, r.peers, peer) || d == policy.Egress && n.Names.hasSome(application.DomainNames(np, i), peer)
			if matches && n.matchesPorts(r.ports, f) {
				out.Policy, out.Rule = np, i
				return out
			}
		}
	}
	out.Action = policy.Deny
	return out
}

// PodAt returns the pod that has this address, or nil. A pod of the host network has no address of its own, and the address of
// a pod that has ended may be another pod's.
func (n *NetworkPolicies) PodAt(addr netip.Addr) *corev1.Pod {
	for i := range n.Pods {
		pod := &n.Pods[i]
		if pod.Spec.HostNetwork || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		if hasAddress(pod, addr) {
			return pod
		}
	}
	return nil
}

func hasAddress(pod *corev1.Pod, addr netip.Addr) bool {
	is := func(text string) bool {
		a, err := netip.ParseAddr(text)
		return err == nil && a.Unmap() == addr.Unmap()
	}
	return is(pod.Status.PodIP) || slices.ContainsFunc(pod.Status.PodIPs, func(ip corev1.PodIP) bool { return is(ip.IP) })
}

func (n *NetworkPolicies) isolating(d policy.Direction, pod *corev1.Pod) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for i := range n.Policies {
		np := &n.Policies[i]
		if !n.EnforceAudited && policy.IsLabelledAudit(np.Labels) {
			continue
		}
		if np.Namespace == pod.Namespace && affects(d, np) && selects(&np.Spec.PodSelector, pod.Labels) {
			out = append(out, np)
		}
	}
	slices.SortFunc(out, func(a, b *networkingv1.NetworkPolicy) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// affects reports whether a policy isolates in direction d. "If no policyTypes are specified on a NetworkPolicy then by default
// Ingress will always be set and Egress will be set if the NetworkPolicy has any egress rules."
func affects(d policy.Direction, np *networkingv1.NetworkPolicy) bool {
	if len(np.Spec.PolicyTypes) == 0 {
		return d == policy.Ingress || len(np.Spec.Egress) > 0
	}
	want := networkingv1.PolicyTypeIngress
	if d == policy.Egress {
		want = networkingv1.PolicyTypeEgress
	}
	for _, t := range np.Spec.PolicyTypes {
		if t == want {
			return true
		}
	}
	return false
}

type apiRule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rulesOf(d policy.Direction, np *networkingv1.NetworkPolicy) (out []apiRule) {
	if d == policy.Ingress {
		for _, r := range np.Spec.Ingress {
			out = append(out, apiRule{r.From, r.Ports})
		}
		return out
	}
	for _, r := range np.Spec.Egress {
		out = append(out, apiRule{r.To, r.Ports})
	}
	return out
}

// matchesPeers: "If this field is empty or missing, this rule matches all sources" (destinations). Otherwise one peer must match.
func (n *NetworkPolicies) matchesPeers(namespace string, peers []networkingv1.NetworkPolicyPeer, addr netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	pod := n.PodAt(addr)
	return slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool { return n.matchesPeer(namespace, &p, addr, pod) })
}

func (n *NetworkPolicies) matchesPeer(namespace string, p *networkingv1.NetworkPolicyPeer, addr netip.Addr, pod *corev1.Pod) bool {
	switch {
	case p.IPBlock != nil: // "If this field is set then neither of the other fields can be"
		return inBlock(p.IPBlock, addr)
	case pod == nil:
		return false
	case p.NamespaceSelector == nil && p.PodSelector == nil: // the API server rejects such a peer
		return false
	case p.NamespaceSelector == nil: // "the pods matching podSelector in the policy's own namespace"
		return pod.Namespace == namespace && selects(p.PodSelector, pod.Labels)
	case !n.selectsNamespace(p.NamespaceSelector, pod.Namespace):
		return false
	}
	return p.PodSelector == nil || selects(p.PodSelector, pod.Labels) // "Otherwise it selects all pods in the selected namespaces"
}

// selectsNamespace: no selector selects a namespace that does not exist.
func (n *NetworkPolicies) selectsNamespace(selector *metav1.LabelSelector, name string) bool {
	return slices.ContainsFunc(n.Namespaces, func(ns corev1.Namespace) bool { return ns.Name == name && selects(selector, ns.Labels) })
}

// matchesPorts: "If this field is empty or missing, this rule matches all ports". Otherwise one port must match. In either
// direction, a named port is one of the pod that receives the connection.
func (n *NetworkPolicies) matchesPorts(ports []networkingv1.NetworkPolicyPort, f policy.Flow) bool {
	if len(ports) == 0 {
		return true
	}
	target := n.PodAt(f.Destination)
	return slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		switch {
		case protocolOf(p.Protocol) != f.Protocol.String():
			return false
		case p.Port == nil: // "If this field is not provided, this matches all port names and numbers"
			return true
		case p.Port.StrVal != "":
			return target != nil && hasNamedPort(target, p.Port.StrVal, f)
		case p.EndPort == nil:
			return int(p.Port.IntVal) == int(f.Port)
		}
		return int(f.Port) >= int(p.Port.IntVal) && int(f.Port) <= int(*p.EndPort)
	})
}

// hasNamedPort reports whether a container of the pod gives this name to the flow's port. Of init containers, only sidecars run
// beside the others.
func hasNamedPort(pod *corev1.Pod, name string, f policy.Flow) bool {
	containers := slices.Clone(pod.Spec.Containers)
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Name == name && protocolOf(&p.Protocol) == f.Protocol.String() && int(p.ContainerPort) == int(f.Port) {
				return true
			}
		}
	}
	return false
}

// protocolOf: "If this field is not specified, this field defaults to TCP."
func protocolOf(p *corev1.Protocol) string {
	if p == nil || *p == "" {
		return string(corev1.ProtocolTCP)
	}
	return string(*p)
}
