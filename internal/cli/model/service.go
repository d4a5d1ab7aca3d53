package model

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/policy"
)

// Backend is where connections to a Service's port arrive.
type Backend struct {
	Protocol policy.Protocol
	Address  netip.AddrPort
}

// Backends of a Service's port: what its EndpointSlices say or, without any, the pods that it selects.
func (c *Cluster) Backends(s *corev1.Service, port *corev1.ServicePort) []Backend {
	protocol := policy.ProtocolOf(&port.Protocol)
	var out []Backend
	sliced := false
	for i := range c.EndpointSlices {
		es := &c.EndpointSlices[i]
		if es.Namespace != s.Namespace || es.Labels[discoveryv1.LabelServiceName] != s.Name {
			continue
		}
		sliced = true
		for _, ep := range es.Ports {
			if ep.Port == nil || policy.ProtocolOf(ep.Protocol) != protocol || ep.Name != nil && *ep.Name != port.Name {
				continue
			}
			for _, e := range es.Endpoints {
				if e.Conditions.Ready != nil && !*e.Conditions.Ready {
					continue
				}
				for _, a := range e.Addresses {
					if addr, err := netip.ParseAddr(a); err == nil {
						out = append(out, Backend{protocol, netip.AddrPortFrom(addr.Unmap(), uint16(*ep.Port))})
					}
				}
			}
		}
	}
	if sliced || len(s.Spec.Selector) == 0 {
		return out
	}
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Namespace != s.Namespace || !selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		n := targetPort(port, &p.Pod)
		if n == 0 {
			continue
		}
		for _, addr := range policy.PodAddresses(&p.Pod) {
			out = append(out, Backend{protocol, netip.AddrPortFrom(addr, n)})
		}
	}
	return out
}

// Mistaken finds a Service of a pod that has this port and sends to another of the pod: the two are easily taken for each other.
func (c *Cluster) Mistaken(pod *Pod, port Port) (service *corev1.Service, target uint16) {
	for i := range c.Services {
		s := &c.Services[i]
		if s.Namespace != pod.Namespace || len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			continue
		}
		for j := range s.Spec.Ports {
			sp := &s.Spec.Ports[j]
			if uint16(sp.Port) != port.Number || policy.ProtocolOf(&sp.Protocol) != port.Protocol {
				continue
			}
			if n := targetPort(sp, &pod.Pod); n != 0 && n != port.Number {
				return s, n
			}
		}
	}
	return nil, 0
}
