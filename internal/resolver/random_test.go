package resolver

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/policy"
)

// dice draws clusters in which much overlaps: few names, labels, addresses and ports.
type dice struct{ *rand.Rand }

func pick[T any](d dice, from ...T) T { return from[d.IntN(len(from))] }

func (d dice) namespace() string { return pick(d, "n1", "n2", "n3", "kidoban") }

func (d dice) addr() netip.Addr {
	return pick(d, netip.AddrFrom4([4]byte{10, 0, byte(d.IntN(3)), byte(d.IntN(40))}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", d.IntN(60))))
}

func (d dice) namedPort() policy.NamedPort {
	return policy.NamedPort{Protocol: d.protocol(), Name: pick(d, "http", "dns"), Port: pick[uint16](d, 80, 53, 8080)}
}

func (d dice) protocol() policy.Protocol {
	return pick(d, policy.TCP, policy.TCP, policy.UDP, policy.SCTP)
}

func (d dice) podKey() types.NamespacedName {
	return types.NamespacedName{Namespace: d.namespace(), Name: fmt.Sprintf("p%d", d.IntN(12))}
}

func (d dice) pod(key types.NamespacedName) Pod {
	p := Pod{Key: key, Labels: randomLabels(d.Rand), HostNetwork: d.IntN(10) == 0}
	p.Phase = pick(d, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodFailed, corev1.PodSucceeded)
	for range d.IntN(3) {
		if a := d.addr(); len(p.Addresses) == 0 || a != p.Addresses[0] {
			p.Addresses = append(p.Addresses, a)
		}
	}
	for range d.IntN(3) {
		if n := d.namedPort(); len(p.Ports) == 0 || n != p.Ports[0] {
			p.Ports = append(p.Ports, n)
		}
	}
	return p
}

func (d dice) policy(generation int64) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: d.namespace(), Name: pick(d, "a", "b", "c"), UID: pick[types.UID](d, "1", "1", "1", "2"), Generation: generation,
	}}
	np.Spec.PodSelector = *randomSelector(d.Rand)
	np.Spec.PolicyTypes = pick(d, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Egress", "Ingress"})
	for range d.IntN(4) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: d.peers(), Ports: d.ports()})
	}
	for range d.IntN(4) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: d.peers(), Ports: d.ports()})
	}
	return np
}

func (d dice) peers() (out []networkingv1.NetworkPolicyPeer) {
	for range d.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		switch d.IntN(4) {
		case 0:
			p.PodSelector = randomSelector(d.Rand)
		case 1:
			p.NamespaceSelector = randomSelector(d.Rand)
		case 2:
			p.PodSelector, p.NamespaceSelector = randomSelector(d.Rand), randomSelector(d.Rand)
		case 3:
			p.IPBlock = pick(d,
				&networkingv1.IPBlock{CIDR: "10.0.0.0/8"},
				&networkingv1.IPBlock{CIDR: "10.0.0.0/16", Except: []string{"10.0.1.0/24"}},
				&networkingv1.IPBlock{CIDR: "10.0.0.0/16", Except: []string{"10.0.1.0/24", "10.0.1.7/32", "10.0.0.8/29"}},
				&networkingv1.IPBlock{CIDR: "0.0.0.0/0", Except: []string{"10.0.0.0/24"}},
				&networkingv1.IPBlock{CIDR: "2001:db8::/64", Except: []string{"2001:db8::10/124"}},
			)
		}
		out = append(out, p)
	}
	return out
}

func (d dice) ports() (out []networkingv1.NetworkPolicyPort) {
	for range d.IntN(4) {
		var p networkingv1.NetworkPolicyPort
		if d.IntN(2) == 0 {
			p.Protocol = pick(d, new(corev1.ProtocolTCP), new(corev1.ProtocolUDP), new(corev1.ProtocolSCTP))
		}
		switch d.IntN(4) {
		case 0:
			p.Port = new(intstr.FromString(pick(d, "http", "dns", "nosuch")))
		case 1:
			p.Port = new(intstr.FromInt32(pick[int32](d, 53, 79, 80, 81)))
		case 2:
			p.Port, p.EndPort = new(intstr.FromInt32(pick[int32](d, 1, 53, 80))), pick(d, new(int32(80)), new(int32(8080)), new(int32(65535)))
		}
		out = append(out, p)
	}
	return out
}

func (d dice) flow() flow {
	return flow{peer: d.addr(), protocol: pick(d, policy.TCP, policy.UDP, policy.SCTP, policy.ICMP), port: pick[uint16](d, 1, 53, 79, 80, 81, 8080, 8081)}
}
