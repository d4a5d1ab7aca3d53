package resolver

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	netutils "k8s.io/utils/net"

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
	out := Pod{
		Key:         types.NamespacedName{Namespace: p.Namespace, Name: p.Name},
		Labels:      p.Labels,
		Phase:       p.Status.Phase,
		HostNetwork: p.Spec.HostNetwork,
	}
	for _, ip := range p.Status.PodIPs {
		if addr, ok := parseAddr(ip.IP); ok && !slices.Contains(out.Addresses, addr) {
			out.Addresses = append(out.Addresses, addr)
		}
	}
	for i := range p.Spec.Containers {
		out.addPorts(p.Spec.Containers[i].Ports)
	}
	for i := range p.Spec.InitContainers {
		// a restartable init container (a sidecar) serves as long as the pod lives; any other is gone before the pod serves
		if policy := p.Spec.InitContainers[i].RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			out.addPorts(p.Spec.InitContainers[i].Ports)
		}
	}
	return out
}

func (p *Pod) addPorts(ports []corev1.ContainerPort) {
	for _, port := range ports {
		protocol, ok := protocolNumber(port.Protocol)
		if port.Name == "" || !ok || port.ContainerPort < 1 || port.ContainerPort > 65535 {
			continue
		}
		n := policy.NamedPort{Protocol: protocol, Name: port.Name, Port: uint16(port.ContainerPort)}
		if !slices.Contains(p.Ports, n) {
			p.Ports = append(p.Ports, n)
		}
	}
}

// isPeer reports whether selectors of peers can select the pod. A terminating pod is one until it is gone.
func (p *Pod) isPeer() bool {
	return len(p.Addresses) > 0 && !p.HostNetwork && p.Phase != corev1.PodSucceeded && p.Phase != corev1.PodFailed
}

// parseAddr reads an address as the API server does, which lets old objects have leading zeros.
func parseAddr(s string) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(netutils.ParseIPSloppy(s))
	return addr.Unmap(), ok
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
