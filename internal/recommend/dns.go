package recommend

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kidoban/kidoban/internal/policy"
)

// dns is the cluster's DNS, which every workload may ask.
type dns struct {
	unit  *unit
	peer  networkingv1.NetworkPolicyPeer
	ports []policy.PortRange
}

// dnsPort is the port of DNS (RFC 1035).
const dnsPort = 53

// dnsServices are the Services of cluster DNS as distributions name them.
var dnsServices = [][2]string{{"kube-system", "kube-dns"}, {"kube-system", "coredns"}, {"kube-system", "rke2-coredns-rke2-coredns"}, {"openshift-dns", "dns-default"}}

// findDNS by its Service or, without one, by the labels that CoreDNS has in most clusters.
func (w *writer) findDNS() dns {
	for _, name := range dnsServices {
		if s := w.service(name[0], name[1]); s != nil && len(s.Spec.Selector) > 0 {
			if out, ok := w.dnsOf(s); ok {
				return out
			}
		}
	}
	out := dns{peer: peerOf("kube-system", &metav1.LabelSelector{MatchLabels: map[string]string{"k8s-app": "kube-dns"}})}
	for _, p := range [...]policy.Protocol{policy.TCP, policy.UDP} {
		out.ports = append(out.ports, policy.PortRange{Protocol: p, First: dnsPort, Last: dnsPort})
	}
	for _, u := range w.units {
		if u.namespace() == "kube-system" && slices.ContainsFunc(u.pods(), func(p map[string]string) bool { return p["k8s-app"] == "kube-dns" }) {
			out.unit = u
		}
	}
	return out
}

func (w *writer) service(namespace, name string) *corev1.Service {
	if w.in.Objects == nil {
		return nil
	}
	for i := range w.in.Objects.Services {
		if s := &w.in.Objects.Services[i]; s.Namespace == namespace && s.Name == name {
			return s
		}
	}
	return nil
}

// dnsOf a Service: the unit of its pods, and the ports to which connections to its port 53 go.
func (w *writer) dnsOf(s *corev1.Service) (out dns, ok bool) {
	selector := labels.SelectorFromSet(s.Spec.Selector)
	for i := range w.in.Objects.Pods {
		pod := &w.in.Objects.Pods[i]
		if pod.Namespace != s.Namespace || pod.Spec.HostNetwork || !selector.Matches(labels.Set(pod.Labels)) {
			continue
		}
		out.unit = w.workloads[partyOf(pod)].unit
		for j := range s.Spec.Ports {
			port := &s.Spec.Ports[j]
			n := port.TargetPort.IntVal
			if n == 0 && port.TargetPort.StrVal == "" {
				n = port.Port
			}
			protocol := policy.ProtocolOf(&port.Protocol)
			for _, named := range policy.ContainerPorts(pod) {
				if named.Name == port.TargetPort.StrVal && named.Protocol == protocol {
					n = int32(named.Port)
				}
			}
			if port.Port == dnsPort && n > 0 {
				out.ports = append(out.ports, policy.PortRange{Protocol: protocol, First: uint16(n), Last: uint16(n)})
			}
		}
		break
	}
	if out.unit == nil || out.unit.selector == nil || len(out.ports) == 0 {
		return out, false
	}
	out.peer = peerOf(s.Namespace, out.unit.selector)
	out.ports, _ = portsOf(out.ports, false)
	return out, true
}

// has reports whether a pair is a workload that asks DNS.
func (d *dns) has(p pair) bool {
	return d.unit != nil && p.to.unit == d.unit && slices.Contains(d.ports, policy.PortRange{Protocol: p.protocol, First: p.port, Last: p.port})
}

// isDNS reports whether traffic asks DNS.
func (w *writer) isDNS(t *item) bool {
	protocol, _ := policy.ParseProtocol(t.Protocol)
	return w.dns.has(pair{to: place{unit: w.unitOf(t.Destination)}, protocol: protocol, port: t.Port})
}

// peerOf pods of a namespace.
func peerOf(namespace string, selector *metav1.LabelSelector) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: namespace}},
		PodSelector:       selector.DeepCopy(),
	}
}
