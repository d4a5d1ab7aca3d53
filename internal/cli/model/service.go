package model

import (
	"fmt"
	"net/netip"
	"slices"

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

// Mistaken is a Service's port that is easily taken for the port of its pods.
type Mistaken struct {
	Service *corev1.Service
	Port    *corev1.ServicePort
	// NodePort: the port of the nodes is meant, and not the Service's own.
	NodePort bool
	// Target is the pods' port, to which the Service sends.
	Target uint16
}

// String is "443 is the port of Service namespace/name".
func (m *Mistaken) String() string {
	if m.NodePort {
		return fmt.Sprintf("%d is the node port of Service %s/%s", m.Port.NodePort, m.Service.Namespace, m.Service.Name)
	}
	return fmt.Sprintf("%d is the port of Service %s/%s", m.Port.Port, m.Service.Namespace, m.Service.Name)
}

// Mistaken finds a Service of a pod that has a port of a range and sends to one outside of it; nil if there is none.
func (c *Cluster) Mistaken(pod *Pod, r policy.PortRange) *Mistaken {
	within := func(n uint16) bool { return n != 0 && r.First <= n && n <= r.Last }
	for i := range c.Services {
		s := &c.Services[i]
		if s.Namespace != pod.Namespace || len(s.Spec.Selector) == 0 || !labels.SelectorFromSet(s.Spec.Selector).Matches(labels.Set(pod.Labels)) {
			continue
		}
		for j := range s.Spec.Ports {
			sp := &s.Spec.Ports[j]
			if policy.ProtocolOf(&sp.Protocol) != r.Protocol {
				continue
			}
			target := targetPort(sp, &pod.Pod)
			switch {
			case target == 0 || within(target):
			case within(uint16(sp.Port)):
				return &Mistaken{Service: s, Port: sp, Target: target}
			case within(uint16(sp.NodePort)):
				return &Mistaken{Service: s, Port: sp, NodePort: true, Target: target}
			}
		}
	}
	return nil
}

// HasAddress reports whether a Service is reached at an address: its cluster IP, one of its load balancer, or an external one.
func HasAddress(s *corev1.Service, addr netip.Addr) bool {
	return isClusterIP(s, addr) || IsExternal(s, addr)
}

func isClusterIP(s *corev1.Service, addr netip.Addr) bool {
	return isOneOf(addr, append(slices.Clone(s.Spec.ClusterIPs), s.Spec.ClusterIP))
}

// IsExternal reports whether a Service is reached at an address that its load balancer has, or that is an external one.
func IsExternal(s *corev1.Service, addr netip.Addr) bool {
	outside := append(slices.Clone(s.Spec.ExternalIPs), s.Spec.LoadBalancerIP)
	for _, in := range s.Status.LoadBalancer.Ingress {
		outside = append(outside, in.IP)
	}
	return isOneOf(addr, outside)
}

func isOneOf(addr netip.Addr, ips []string) bool {
	return slices.ContainsFunc(ips, func(ip string) bool {
		a, err := netip.ParseAddr(ip)
		return err == nil && a.Unmap() == addr
	})
}
