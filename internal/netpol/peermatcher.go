package netpol

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

// PeerMatcher is a peer of a NetworkPolicy, parsed once to be matched often.
type PeerMatcher struct {
	// namespace is the policy's, if the peer selects pods of that namespace only.
	namespace string
	// namespaces and pods select all if they are nil. An ipBlock does not use them.
	namespaces, pods labels.Selector
	block            bool
	cidr             *net.IPNet
	except           []*net.IPNet
}

// NewPeerMatcher parses a peer of a policy in this namespace. A part that cannot be parsed matches nothing.
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
	if peer.PodSelector == nil { // an empty peer, which the API server rejects
		m.pods = labels.Nothing()
	}
	return m
}

// readBlock parses a block as the API server does: old objects may have leading zeros, and IPv4 written as IPv6.
func (m *PeerMatcher) readBlock(block *networkingv1.IPBlock) {
	m.block = true
	_, m.cidr, _ = netutils.ParseCIDRSloppy(block.CIDR)
	for _, e := range block.Except {
		if _, n, err := netutils.ParseCIDRSloppy(e); err == nil {
			m.except = append(m.except, n)
		}
	}
}

// Matches reports whether the peer contains an address. pod is the pod that has the address, or nil. namespaceLabels are those
// of the pod's namespace, or nil if the namespace is unknown.
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

// readSelector parses a selector. One that is invalid selects nothing.
func readSelector(selector *metav1.LabelSelector) labels.Selector {
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return labels.Nothing()
	}
	return s
}
