package policy

import (
	"net"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	netutils "k8s.io/utils/net"
)

// PeerMatcher is one peer of a NetworkPolicy, read once so that it can be asked often.
type PeerMatcher struct {
	// namespace is the policy's, where pods of no other are meant.
	namespace string
	// namespaces and pods select; nil selects all. For an ipBlock they mean nothing.
	namespaces, pods labels.Selector
	block            bool
	cidr             *net.IPNet
	except           []*net.IPNet
}

// NewPeerMatcher reads a peer of a policy in this namespace. What cannot be read matches nothing.
func NewPeerMatcher(namespace string, peer *networkingv1.NetworkPolicyPeer) *PeerMatcher {
	m := &PeerMatcher{}
	if peer.IPBlock != nil {
		m.readBlock(peer.IPBlock)
		return m
	}
	if peer.PodSelector != nil {
		m.pods = readSelector(peer.PodSelector)
	}
	if peer.NamespaceSelector != nil {
		m.namespaces = readSelector(peer.NamespaceSelector)
		return m
	}
	m.namespace = namespace
	if peer.PodSelector == nil { // nothing is asked for, which the API server refuses
		m.pods = labels.Nothing()
	}
	return m
}

// readBlock reads a block as the API server does, which lets old objects have leading zeros and IPv4 written as IPv6.
func (m *PeerMatcher) readBlock(block *networkingv1.IPBlock) {
	m.block = true
	_, m.cidr, _ = netutils.ParseCIDRSloppy(block.CIDR)
	for _, e := range block.Except {
		if _, n, err := netutils.ParseCIDRSloppy(e); err == nil {
			m.except = append(m.except, n)
		}
	}
}

// Matches reports whether an address is the peer's. pod is the one that has it, or nil; namespaceLabels are those of the pod's
// namespace, nil if it is not known.
func (m *PeerMatcher) Matches(addr netip.Addr, pod *corev1.Pod, namespaceLabels map[string]string) bool {
	if m.block {
		ip := net.IP(addr.AsSlice())
		return m.cidr != nil && m.cidr.Contains(ip) && !slices.ContainsFunc(m.except, func(e *net.IPNet) bool { return e.Contains(ip) })
	}
	if pod == nil {
		return false
	}
	if m.namespaces != nil {
		if namespaceLabels == nil || !m.namespaces.Matches(labels.Set(namespaceLabels)) {
			return false
		}
	} else if pod.Namespace != m.namespace {
		return false
	}
	return m.pods == nil || m.pods.Matches(labels.Set(pod.Labels))
}

// readSelector: a selector that cannot be read selects nothing.
func readSelector(selector *metav1.LabelSelector) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return s
}
