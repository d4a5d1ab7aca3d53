package matrix

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/e2e/reach"
	"github.com/kidoban/kidoban/internal/policy"
)

// WorkloadLabel names the workload of a pod.
const WorkloadLabel = "app.kubernetes.io/name"

// PodEndpoints are the declared container ports of pods, at each of their addresses.
func PodEndpoints(pods []corev1.Pod) []Endpoint {
	var endpoints []Endpoint
	for i := range pods {
		pod := &pods[i]
		for _, container := range pod.Spec.Containers {
			for _, port := range container.Ports {
				for _, address := range policy.PodAddresses(pod) {
					at := netip.AddrPortFrom(address, uint16(port.ContainerPort))
					endpoints = append(endpoints, newEndpoint(pod.Labels[WorkloadLabel], port.Protocol, at, at))
				}
			}
		}
	}
	return sorted(endpoints)
}

// ServiceEndpoints are the ports of Services, at each of their cluster addresses, with the pods that kube-proxy sends
// connections to.
func ServiceEndpoints(services []corev1.Service, pods []corev1.Pod) []Endpoint {
	var endpoints []Endpoint
	for i := range services {
		service := &services[i]
		for _, port := range service.Spec.Ports {
			for _, ip := range service.Spec.ClusterIPs {
				address, err := netip.ParseAddr(ip)
				if err != nil {
					continue // a headless Service
				}
				at := netip.AddrPortFrom(address, uint16(port.Port))
				backends := backends(service, port, pods, address.Is4())
				endpoints = append(endpoints, newEndpoint(service.Name, port.Protocol, at, backends...))
			}
		}
	}
	return sorted(endpoints)
}

// HostEndpoints are ports of something that is no pod.
func HostEndpoints(group string, addresses []netip.Addr, ports ...uint16) []Endpoint {
	var endpoints []Endpoint
	for _, port := range ports {
		for _, address := range addresses {
			at := netip.AddrPortFrom(address, port)
			endpoints = append(endpoints, newEndpoint(group, corev1.ProtocolTCP, at, at))
		}
	}
	return endpoints
}

func newEndpoint(group string, protocol corev1.Protocol, at netip.AddrPort, backends ...netip.AddrPort) Endpoint {
	name := fmt.Sprint(at.Port())
	if protocol == corev1.ProtocolUDP {
		name += "/udp"
	}
	return Endpoint{
		Column:   Column{Group: group, Port: name},
		Target:   reach.Target{Protocol: strings.ToLower(string(cmp.Or(protocol, corev1.ProtocolTCP))), Address: at},
		Backends: backends,
	}
}

// sorted puts the ports of each workload beside each other, and leaves the workloads in their order.
func sorted(endpoints []Endpoint) []Endpoint {
	var groups []string
	for _, e := range endpoints {
		if !slices.Contains(groups, e.Column.Group) {
			groups = append(groups, e.Column.Group)
		}
	}
	slices.SortStableFunc(endpoints, func(a, b Endpoint) int {
		return cmp.Or(
			cmp.Compare(slices.Index(groups, a.Column.Group), slices.Index(groups, b.Column.Group)),
			cmp.Compare(a.Target.Address.Port(), b.Target.Address.Port()),
			cmp.Compare(a.Target.Protocol, b.Target.Protocol),
		)
	})
	return endpoints
}

func backends(service *corev1.Service, port corev1.ServicePort, pods []corev1.Pod, ipv4 bool) []netip.AddrPort {
	var out []netip.AddrPort
	selector := labels.SelectorFromSet(service.Spec.Selector)
	for i := range pods {
		pod := &pods[i]
		if pod.Namespace != service.Namespace || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		number := targetPort(port, pod)
		for _, address := range policy.PodAddresses(pod) {
			if address.Is4() == ipv4 && number != 0 {
				out = append(out, netip.AddrPortFrom(address, number))
			}
		}
	}
	return out
}

// targetPort is the number of a Service's port at a pod, or 0 if the pod does not have it.
func targetPort(port corev1.ServicePort, pod *corev1.Pod) uint16 {
	if port.TargetPort.StrVal == "" {
		return uint16(cmp.Or(port.TargetPort.IntVal, port.Port))
	}
	for _, named := range policy.ContainerPorts(pod) {
		if named.Name == port.TargetPort.StrVal && named.Protocol == policy.ProtocolOf(&port.Protocol) {
			return named.Port
		}
	}
	return 0
}
