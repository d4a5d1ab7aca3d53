package controller

import (
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestTrustedResolversOfAClustersDNS(t *testing.T) {
	service := func(namespace, name, label string, ips ...string) *corev1.Service {
		s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
		if label != "" {
			s.Labels = map[string]string{"k8s-app": label}
		}
		s.Spec.ClusterIPs = ips
		s.Spec.Ports = []corev1.ServicePort{
			{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53}, {Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53}, {Name: "metrics", Port: 9153},
		}
		return s
	}
	endpoints := func(namespace, service string, port int32, addresses ...string) *discoveryv1.EndpointSlice {
		e := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + "-x", Labels: map[string]string{discoveryv1.LabelServiceName: service}}}
		e.Ports = []discoveryv1.EndpointPort{{Name: new("dns"), Port: &port}, {Name: new("dns-tcp"), Port: &port}, {Name: new("metrics"), Port: new(int32(9153))}, {}}
		for _, a := range addresses {
			e.Endpoints = append(e.Endpoints, discoveryv1.Endpoint{Addresses: []string{a}})
		}
		return e
	}
	for _, tc := range []struct {
		name      string
		fixed     []netip.AddrPort
		services  []*corev1.Service
		endpoints []*discoveryv1.EndpointSlice
		want      string
	}{
		{name: "nothing", want: "[]"},
		{name: "the flag", fixed: []netip.AddrPort{netip.MustParseAddrPort("169.254.20.10:53")}, want: "[169.254.20.10:53]"},
		{name: "kube-dns of both families with another target port", services: []*corev1.Service{service("kube-system", "kube-dns", "", "10.96.0.10", "fd00::a")},
			endpoints: []*discoveryv1.EndpointSlice{endpoints("kube-system", "kube-dns", 5353, "10.0.0.1", "10.0.0.2")},
			want:      "[10.0.0.1:5353 10.0.0.2:5353 10.96.0.10:53 [fd00::a]:53]"},
		{name: "RKE2, by the label", services: []*corev1.Service{service("kube-system", "rke2-coredns-rke2-coredns", "kube-dns", "10.43.0.10")}, want: "[10.43.0.10:53]"},
		{name: "OpenShift", services: []*corev1.Service{service("openshift-dns", "dns-default", "", "172.30.0.10")},
			endpoints: []*discoveryv1.EndpointSlice{endpoints("openshift-dns", "dns-default", 5353, "10.128.0.5")}, want: "[10.128.0.5:5353 172.30.0.10:53]"},
		{name: "a headless Service", services: []*corev1.Service{service("kube-system", "kube-dns", "", "None")},
			endpoints: []*discoveryv1.EndpointSlice{endpoints("kube-system", "kube-dns", 53, "10.0.0.1", "::ffff:10.0.0.2")}, want: "[10.0.0.1:53 10.0.0.2:53]"},
		{name: "tenants' Services with the label or the name, and other Services of kube-system",
			services: []*corev1.Service{
				service("team-x", "kube-dns", "kube-dns", "10.96.0.66"), service("team-x", "dns-default", "kube-dns", "10.96.0.67"),
				service("kube-system", "dns-default", "metrics", "10.96.0.68"), service("openshift-dns", "kube-dns", "kube-dns", "10.96.0.69"),
			},
			endpoints: []*discoveryv1.EndpointSlice{endpoints("kube-system", "dns-default", 53, "10.0.0.66"), endpoints("kube-system", "", 53, "10.0.0.67")},
			want:      "[]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := newDNSServers(tc.fixed)
			for _, s := range tc.services {
				once, err := stripService(s)
				if err != nil {
					t.Fatal(err)
				}
				stripped, err := stripService(once) // informers may pass an object twice
				if err != nil {
					t.Fatal(err)
				}
				d.setService(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, stripped.(*corev1.Service))
			}
			for _, e := range tc.endpoints {
				stripped, err := stripEndpoints(e)
				if err != nil {
					t.Fatal(err)
				}
				d.setEndpoints(types.NamespacedName{Namespace: e.Namespace, Name: e.Name}, stripped.(*discoveryv1.EndpointSlice))
			}
			if got := fmt.Sprint(d.all()); got != tc.want {
				t.Errorf("%s, want %s", got, tc.want)
			}
			for _, s := range tc.services {
				d.setService(types.NamespacedName{Namespace: s.Namespace, Name: s.Name}, nil)
			}
			if got, want := fmt.Sprint(d.all()), fmt.Sprint(d.fixed); got != want {
				t.Errorf("without Services %s, want %s", got, want)
			}
		})
	}
}
