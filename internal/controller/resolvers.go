package controller

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kidoban/kidoban/internal/resolver"
)

// The namespaces in which Services can be the cluster's DNS. Only administrators can write there: a Service of another namespace that looks like
// the cluster's DNS is a tenant's.
const (
	kubeSystem   = "kube-system"
	openShiftDNS = "openshift-dns"
)

const (
	dnsLabel = "k8s-app"
	dnsPort  = 53
)

// isDNSService reports whether a Service is the cluster's DNS: kube-dns by its name, which kubeadm, EKS, GKE, AKS and k3s use; by the label that
// CoreDNS' chart and RKE2 give to Services of other names; or OpenShift's.
func isDNSService(s *corev1.Service) bool {
	switch s.Namespace {
	case kubeSystem:
		return s.Name == "kube-dns" || s.Name == "coredns" || s.Labels[dnsLabel] == "kube-dns"
	case openShiftDNS:
		return s.Name == "dns-default"
	}
	return false
}

// isDNSPort reports whether resolvers answer at a port of a DNS Service; the others have metrics.
func isDNSPort(p *corev1.ServicePort) bool {
	return p.Port == dnsPort || strings.HasPrefix(p.Name, "dns")
}

// dnsServers finds the DNS servers whose answers count for the domain names of policies: those of --trusted-resolvers, and the addresses and
// endpoints of the cluster's DNS Services.
type dnsServers struct {
	fixed []netip.AddrPort

	mu        sync.Mutex // guards what follows
	services  map[types.NamespacedName]*corev1.Service
	endpoints map[types.NamespacedName]*discoveryv1.EndpointSlice
}

func newDNSServers(fixed []netip.AddrPort) *dnsServers {
	return &dnsServers{
		fixed:    fixed,
		services: map[types.NamespacedName]*corev1.Service{}, endpoints: map[types.NamespacedName]*discoveryv1.EndpointSlice{},
	}
}

// all returns the trusted resolvers in ascending order.
func (d *dnsServers) all() []netip.AddrPort {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := slices.Clone(d.fixed)
	for _, s := range d.services {
		for _, text := range s.Spec.ClusterIPs { // "None" for a headless one
			for _, addr := range appendAddress(nil, text) {
				for _, p := range s.Spec.Ports {
					out = append(out, netip.AddrPortFrom(addr, uint16(p.Port)))
				}
			}
		}
	}
	for name, e := range d.endpoints {
		s := d.services[types.NamespacedName{Namespace: name.Namespace, Name: e.Labels[discoveryv1.LabelServiceName]}]
		if s == nil {
			continue
		}
		for _, p := range e.Ports {
			if p.Port == nil || !slices.ContainsFunc(s.Spec.Ports, func(of corev1.ServicePort) bool { return p.Name != nil && of.Name == *p.Name }) {
				continue
			}
			// Also of endpoints that end: they answer what they were asked, and their addresses are not others' yet.
			for i := range e.Endpoints {
				for _, text := range e.Endpoints[i].Addresses { // not of slices with host names
					for _, addr := range appendAddress(nil, text) {
						out = append(out, netip.AddrPortFrom(addr, uint16(*p.Port)))
					}
				}
			}
		}
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return slices.Compact(out)
}

// setService takes in a Service that is the cluster's DNS, or that one of this name is not; see stripService.
func (d *dnsServers) setService(name types.NamespacedName, s *corev1.Service) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == nil || len(s.Spec.Ports) == 0 {
		delete(d.services, name)
	} else {
		d.services[name] = s
	}
}

// setEndpoints takes in an EndpointSlice of one of the namespaces with the cluster's DNS; nil if it is gone.
func (d *dnsServers) setEndpoints(name types.NamespacedName, e *discoveryv1.EndpointSlice) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if e == nil {
		delete(d.endpoints, name)
	} else {
		d.endpoints[name] = e
	}
}

// watchDNSServices follows the Services of the cluster's DNS.
func (c *Controller) watchDNSServices() handler.TypedEventHandler[*corev1.Service, request] {
	return changed(func(q queue, old, now **corev1.Service) {
		isDNS := old != nil && len((*old).Spec.Ports) > 0 || now != nil && len((*now).Spec.Ports) > 0
		if !isDNS {
			return
		}
		if now == nil {
			c.dns.setService(nameOf(old, now), nil)
		} else {
			c.dns.setService(nameOf(old, now), *now)
		}
		c.trustResolvers(q)
	})
}

// watchDNSEndpoints follows the EndpointSlices of the namespaces with the cluster's DNS.
func (c *Controller) watchDNSEndpoints() handler.TypedEventHandler[*discoveryv1.EndpointSlice, request] {
	return changed(func(q queue, old, now **discoveryv1.EndpointSlice) {
		if now == nil {
			c.dns.setEndpoints(nameOf(old, now), nil)
		} else {
			c.dns.setEndpoints(nameOf(old, now), *now)
		}
		c.trustResolvers(q)
	})
}

// trustResolvers gives the trusted resolvers to the resolver of policies.
func (c *Controller) trustResolvers(q queue) {
	c.feed(q, "resolvers", "", time.Time{}, func() resolver.Changes {
		all := c.dns.all()
		trustedGauge.Set(float64(len(all)))
		return c.resolver.SetTrustedResolvers(all)
	})
}
