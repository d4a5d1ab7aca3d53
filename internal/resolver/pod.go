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
	UID         types.UID
	Mirrors     types.UID // of the static pod whose mirror this is: the node knows it by that UID
	Node        string    // empty until the pod is bound
	Labels      map[string]string
	Phase       corev1.PodPhase
	HostNetwork bool
	// Addresses are those of both families in the pod's status.
	Addresses []netip.Addr
	// Ports are the named ports of its containers. Containers may give one name to different numbers.
	Ports []policy.NamedPort
}

// PodOf returns the fields of a pod that the resolver needs. It shares the labels with the pod.
func PodOf(p *corev1.Pod) Pod {
	return Pod{
		Key:         types.NamespacedName{Namespace: p.Namespace, Name: p.Name},
		UID:         p.UID,
		Mirrors:     types.UID(p.Annotations[corev1.MirrorPodAnnotationKey]),
		Node:        p.Spec.NodeName,
		Labels:      p.Labels,
		Phase:       p.Status.Phase,
		HostNetwork: p.Spec.HostNetwork,
		Addresses:   policy.PodAddresses(p),
		Ports:       policy.ContainerPorts(p),
	}
}

// isFinal reports whether all of the pod's containers have ended for good.
func (p *Pod) isFinal() bool { return p.Phase == corev1.PodSucceeded || p.Phase == corev1.PodFailed }

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
