package policy

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Cluster answers what NetworkPolicies mean for the pods that there are, straight from the API objects and as the
// documentation of networking.k8s.io/v1 says it, without groups, slices or tables in between. It is what the engine's
// own way is compared with, and what `kubectl kidoban explain` quotes. It walks everything at each question.
type Cluster struct {
	Namespaces []corev1.Namespace
	Pods       []corev1.Pod
	Policies   []networkingv1.NetworkPolicy
}

// ClusterVerdict is what the NetworkPolicies say about one direction of a flow.
type ClusterVerdict struct {
	// Allowed is the answer.
	Allowed bool
	// Isolating are the policies that select the pod in this direction, by namespace and name; none: the pod is not isolated.
	Isolating []*networkingv1.NetworkPolicy
	// Policy and Rule are the first policy, and the first of its rules in this direction, that allow the flow. Policy is nil where
	// the pod is not isolated or nothing allows the flow.
	Policy *networkingv1.NetworkPolicy
	Rule   int
}

// Allows reports whether a flow passes: both directions must allow it.
func (c *Cluster) Allows(f Flow) bool {
	return f.Source == f.Destination || c.Evaluate(Egress, f).Allowed && c.Evaluate(Ingress, f).Allowed
}

// Evaluate judges one direction of a flow. An address that is no pod's is not isolated.
func (c *Cluster) Evaluate(d Direction, f Flow) ClusterVerdict {
	self := f.Source
	if d == Ingress {
		self = f.Destination
	}
	pod := c.PodAt(self)
	if pod == nil {
		return ClusterVerdict{Allowed: true}
	}
	v := ClusterVerdict{Isolating: c.selecting(d, pod)}
	if len(v.Isolating) == 0 {
		v.Allowed = true
		return v
	}
	for _, np := range v.Isolating {
		for i, r := range ClusterRules(d, np) {
			if c.matchesPeers(np.Namespace, r.Peers, f.Peer(d)) && c.matchesPorts(r.Ports, f) {
				v.Allowed, v.Policy, v.Rule = true, np, i
				return v
			}
		}
	}
	return v
}

// PodAt returns the pod that has this address, or nil. Pods of the host network have none of their own, and
// the address of a pod that has ended may be another's.
func (c *Cluster) PodAt(addr netip.Addr) *corev1.Pod {
	for i := range c.Pods {
		if IsPeer(&c.Pods[i]) && slices.Contains(PodAddresses(&c.Pods[i]), addr) {
			return &c.Pods[i]
		}
	}
	return nil
}

// IsPeer reports whether selectors can select a pod: it has an address of its own and has not ended.
func IsPeer(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed &&
		len(PodAddresses(pod)) > 0
}

// PodAddresses are a pod's addresses of all families, each once.
func PodAddresses(pod *corev1.Pod) []netip.Addr {
	var out []netip.Addr
	add := func(ip string) {
		if a, err := netip.ParseAddr(ip); err == nil && !slices.Contains(out, a.Unmap()) {
			out = append(out, a.Unmap())
		}
	}
	for _, ip := range pod.Status.PodIPs {
		add(ip.IP)
	}
	add(pod.Status.PodIP)
	return out
}

// ContainerPorts are the named ports of a pod's containers and of those init containers that keep running beside them.
func ContainerPorts(pod *corev1.Pod) []NamedPort {
	var out []NamedPort
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.Name == "" {
				continue
			}
			n := NamedPort{Protocol: ProtocolOf(&p.Protocol), Name: p.Name, Port: uint16(p.ContainerPort)}
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		if c := &pod.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			add(c)
		}
	}
	return out
}

// ProtocolOf is a port's protocol; without one it is TCP. 0 is a protocol that Kubernetes does not know.
func ProtocolOf(p *corev1.Protocol) Protocol {
	if p == nil {
		return TCP
	}
	switch *p {
	case "", corev1.ProtocolTCP:
		return TCP
	case corev1.ProtocolUDP:
		return UDP
	case corev1.ProtocolSCTP:
		return SCTP
	}
	return 0
}

// PolicyTypes are the directions that a NetworkPolicy isolates in. "If no policyTypes are specified […] Ingress will always be
// set and Egress will be set if the NetworkPolicy has any egress rules."
func PolicyTypes(np *networkingv1.NetworkPolicy) (isolates [2]bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		isolates[Ingress] = true
		isolates[Egress] = len(np.Spec.Egress) > 0
		return isolates
	}
	isolates[Ingress] = slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	isolates[Egress] = slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	return isolates
}

func (c *Cluster) selecting(d Direction, pod *corev1.Pod) []*networkingv1.NetworkPolicy {
	var out []*networkingv1.NetworkPolicy
	for i := range c.Policies {
		np := &c.Policies[i]
		if Selects(d, np, pod) {
			out = append(out, np)
		}
	}
	slices.SortFunc(out, func(a, b *networkingv1.NetworkPolicy) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Selects reports whether a policy isolates a pod in direction d.
func Selects(d Direction, np *networkingv1.NetworkPolicy, pod *corev1.Pod) bool {
	return np.Namespace == pod.Namespace && PolicyTypes(np)[d] && matches(&np.Spec.PodSelector, pod.Labels)
}

// ClusterRule is one rule of a NetworkPolicy, of either direction.
type ClusterRule struct {
	Peers []networkingv1.NetworkPolicyPeer
	Ports []networkingv1.NetworkPolicyPort
}

// ClusterRules are a policy's rules of direction d, in its order.
func ClusterRules(d Direction, np *networkingv1.NetworkPolicy) []ClusterRule {
	var out []ClusterRule
	if d == Ingress {
		for i := range np.Spec.Ingress {
			out = append(out, ClusterRule{np.Spec.Ingress[i].From, np.Spec.Ingress[i].Ports})
		}
		return out
	}
	for i := range np.Spec.Egress {
		out = append(out, ClusterRule{np.Spec.Egress[i].To, np.Spec.Egress[i].Ports})
	}
	return out
}

// "If this field is empty or missing, this rule matches all sources" (destinations).
func (c *Cluster) matchesPeers(namespace string, peers []networkingv1.NetworkPolicyPeer, addr netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	pod := c.PodAt(addr)
	var labels map[string]string
	if pod != nil {
		labels = c.namespaceLabels(pod.Namespace)
	}
	return slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return NewPeerMatcher(namespace, &p).Matches(addr, pod, labels)
	})
}

// namespaceLabels are nil for a namespace that is not known: no selector of namespaces selects it.
func (c *Cluster) namespaceLabels(name string) map[string]string {
	for i := range c.Namespaces {
		if ns := &c.Namespaces[i]; ns.Name == name {
			if ns.Labels == nil {
				return map[string]string{}
			}
			return ns.Labels
		}
	}
	return nil
}

// "If this field is empty or missing, this rule matches all ports".
func (c *Cluster) matchesPorts(ports []networkingv1.NetworkPolicyPort, f Flow) bool {
	return MatchesPorts(ports, c.PodAt(f.Destination), f)
}

// MatchesPorts reports whether one of a rule's ports is the flow's; a rule without ports has all. A named port is that of the
// pod that receives, in either direction; nil for what is no pod.
func MatchesPorts(ports []networkingv1.NetworkPolicyPort, target *corev1.Pod, f Flow) bool {
	return len(ports) == 0 || slices.ContainsFunc(ports, func(p networkingv1.NetworkPolicyPort) bool {
		return matchesPort(&p, target, f)
	})
}

func matchesPort(p *networkingv1.NetworkPolicyPort, target *corev1.Pod, f Flow) bool {
	switch {
	case ProtocolOf(p.Protocol) != f.Protocol:
		return false
	case p.Port == nil:
		return true
	case p.Port.StrVal != "":
		return target != nil && slices.Contains(ContainerPorts(target), NamedPort{f.Protocol, p.Port.StrVal, f.Port})
	case p.EndPort != nil:
		return p.Port.IntVal <= int32(f.Port) && int32(f.Port) <= *p.EndPort
	}
	return p.Port.IntVal == int32(f.Port)
}

func matches(selector *metav1.LabelSelector, set map[string]string) bool {
	return readSelector(selector).Matches(labels.Set(set))
}
