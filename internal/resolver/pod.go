package resolver

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// Pod contains the fields of a pod that the resolver needs.
type Pod struct {
	Key         types.NamespacedName
	Labels      map[string]string
	Phase       corev1.PodPhase
	HostNetwork bool
	// Addresses are the pod's addresses of both families.
	Addresses []netip.Addr
	// Ports are the named ports of its containers. Containers may give one name to different numbers.
	Ports []policy.NamedPort
}

// PodOf returns the fields of a pod that the resolver needs. It shares the labels with the pod.
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

// isPeer reports whether peer selectors can select the pod. They select a terminating pod until it is
// deleted.
func (p *Pod) isPeer() bool {
	return len(p.Addresses) > 0 && !p.HostNetwork && p.Phase != corev1.PodSucceeded && p.Phase != corev1.PodFailed
}

// protocolNumber returns the number of a protocol by its name in the API; an empty name is TCP.
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
