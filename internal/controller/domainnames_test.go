//go:build envtest

package controller

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/policy"
)

// expectResolvers waits until the group of the trusted resolvers at a port has these addresses.
func (c *cluster) expectResolvers(port uint16, want string) {
	c.t.Helper()
	eventually(c.t, func() error {
		got, err := c.addresses(shared, policy.ResolversGroup(port))
		if err == nil && got != want {
			err = fmt.Errorf("resolvers at port %d are %q, want %q", port, got, want)
		}
		return err
	})
}

func TestDomainNamesNeedATrustedResolver(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	crd := c.installClusterKind("cluster-network-policy-experimental")
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
		c.expectNoClusterEndpoints()
	})
	const names = `
tier: Admin
priority: 7
subject: {namespaces: {matchLabels: {test: TEST}}}
egress:
- {action: Accept, to: [{domainNames: [API.example.com., "*.example.org"]}]}`
	np := c.clusterPolicy("names", names)
	c.expectPolicyCondition(np, metav1.ConditionFalse, "--trusted-resolvers")

	service := func(namespace, name string) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{"k8s-app": "kube-dns"}}}
		s.Spec.Ports = []corev1.ServicePort{{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}, {Name: "metrics", Protocol: corev1.ProtocolTCP, Port: 9153}}
		return s
	}
	tenant := service(c.ns("shop"), "kube-dns")
	c.create(tenant)
	dns := service("kube-system", c.prefix+"dns")
	c.create(dns)
	t.Cleanup(func() { c.delete(dns) })
	c.expectPolicyCondition(np, metav1.ConditionTrue, "")
	c.expectResolvers(53, dns.Spec.ClusterIP)

	endpoints := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "kube-system", Name: c.prefix + "dns-x", Labels: map[string]string{discoveryv1.LabelServiceName: dns.Name}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: new("dns"), Protocol: new(corev1.ProtocolUDP), Port: new(int32(5353))}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.9.8.1"}}, {Addresses: []string{"10.9.8.2"}}},
	}
	c.create(endpoints)
	t.Cleanup(func() { c.delete(endpoints) })
	c.expectResolvers(5353, "10.9.8.1 10.9.8.2")
	edit(c, endpoints, func(e *discoveryv1.EndpointSlice) { e.Endpoints = e.Endpoints[1:] })
	c.expectResolvers(5353, "10.9.8.2")
	c.expectResolvers(53, dns.Spec.ClusterIP)

	edit(c, dns, func(s *corev1.Service) { s.Labels = nil }) // it is not the cluster's DNS any more
	c.expectPolicyCondition(np, metav1.ConditionFalse, "--trusted-resolvers")

	np = c.clusterPolicy("names", `
tier: Baseline
priority: 7
subject: {namespaces: {matchLabels: {test: TEST}}}
egress:
- {action: Accept, to: [{domainNames: [api.example.com]}]}`)
	c.expectPolicyCondition(np, metav1.ConditionFalse, "domain names are for Accept rules of the Admin tier")
}
