package resolver

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// Pod is what the resolver needs to know of a pod.
type Pod struct {
	Key         types.NamespacedName
	Labels      map[string]string
	Phase       corev1.PodPhase
	HostNetwork bool
	// Addresses are the pod's own, of both families.
	Addresses []netip.Addr
	// Ports are those that its containers name. One name may stand for several numbers, of several containers.
	Ports []policy.NamedPort
}

// PodOf takes from a pod what the resolver needs. The labels are shared with it, not copied.
func PodOf(p *corev1.Pod) Pod {
	return Pod{
		Key:         types.NamespacedName{Namespace: p.Namespace, Name: p.Name},
		Labels:      p.Labels,
		Phase:       p.Status.Phase,
		HostNetwork: p.Spec.HostNetwork,
		Addresses:   policy.PodAddresses(p),
		Ports:       policy.ContainerPorts(p),
	}
}

// isPeer reports whether selectors of peers can select the pod. A terminating pod is one until it is gone.
func (p *Pod) isPeer() bool {
	return len(p.Addresses) > 0 && !p.HostNetwork && p.Phase != corev1.PodSucceeded && p.Phase != corev1.PodFailed
}

// protocolNumber translates the API's name of a protocol; none means TCP.
func protocolNumber(p corev1.Protocol) (policy.Protocol, bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return policy.TCP, true
	case corev1.ProtocolUDP:
		return policy.UDP, true
	case corev1.ProtocolSCTP:
		return policy.SCTP, true
	}
	return 0, false
}
