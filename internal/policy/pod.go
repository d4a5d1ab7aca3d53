package policy

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// IsPeer reports whether selectors can select a pod: it has an address of its own and has not ended.
func IsPeer(pod *corev1.Pod) bool {
	return !pod.Spec.HostNetwork && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed &&
		len(PodAddresses(pod)) > 0
}

// PodAddresses returns a pod's addresses of all families, each once.
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

// ContainerPorts returns the named ports of a pod's containers, and of those init containers that keep running beside them.
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

// ProtocolOf returns a port's protocol, which is TCP if it has none. It returns 0 for a protocol that Kubernetes does not
// have.
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
