package convert_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// random sets of policies, over few labels, networks and ports, so that they meet.
type random struct{ *rand.Rand }

func pick[T any](r random, list ...T) T { return list[r.IntN(len(list))] }

func (r random) sometimes(n int) bool { return r.IntN(n) == 0 }

var nets = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.0.2.0/24", "192.0.2.7", "0.0.0.0/0", "169.254.169.254/32", "fd00::/16", "fd00:1::/32", "::/0"}

func (r random) nets() []string {
	var out []string
	for range 1 + r.IntN(2) {
		if n := pick(r, nets...); !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

func (r random) term() string {
	key := pick(r, "a", "b")
	return pick(r,
		fmt.Sprintf("%s == '%s'", key, pick(r, "x", "y")),
		fmt.Sprintf("%s != '%s'", key, pick(r, "x", "y")),
		fmt.Sprintf("%s in {'x', 'y'}", key),
		fmt.Sprintf("%s not in {'x', 'z'}", key),
		"has("+key+")", "!has("+key+")", "all()",
	)
}

func (r random) selector() string {
	switch r.IntN(6) {
	case 0:
		return r.term() + " && " + r.term()
	case 1:
		return r.term() + " || " + r.term()
	case 2:
		return "!(" + r.term() + " && " + r.term() + ")"
	}
	return r.term()
}

func (r random) namespaceSelector() string {
	return pick(r, "all()", "global()", "projectcalico.org/name == 'one'", "kubernetes.io/metadata.name in {'one', 'two'}", "team == 'red'", "team != 'red'", "has(team)", "projectcalico.org/name != 'one'")
}

func (r random) entity() (e calico.EntityRule) {
	switch r.IntN(8) {
	case 0:
	case 1, 2:
		e.Nets = r.nets()
	case 3:
		e.Nets, e.NotNets = r.nets(), r.nets()
	case 4:
		e.NotNets = r.nets()
	case 5:
		e.Selector, e.NotSelector = r.selector(), r.term()
	default:
		e.Selector = r.selector()
	}
	if e.Nets == nil && e.NotNets == nil && r.sometimes(3) {
		e.NamespaceSelector = r.namespaceSelector()
	}
	return e
}

func (r random) ports() (out []calico.Port) {
	for range 1 + r.IntN(2) {
		out = append(out, pick(r, calico.Port{First: 80, Last: 80}, calico.Port{First: 80, Last: 90}, calico.Port{First: 1, Last: 65535}, calico.Port{First: 443, Last: 443}))
	}
	if r.sometimes(6) {
		out = []calico.Port{{Name: "http"}}
	}
	return out
}

func (r random) rule(d policy.Direction) (out calico.Rule) {
	out.Action = pick(r, calico.Allow, calico.Allow, calico.Allow, calico.Deny, calico.Deny, calico.Pass, calico.Log)
	if r.sometimes(2) {
		p := calico.Protocol(pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP, policy.ICMP))
		out.Protocol = &p
		if policy.Protocol(p).HasPorts() {
			switch r.IntN(4) {
			case 0, 1:
				out.Destination.Ports = r.ports()
			case 2:
				out.Destination.NotPorts = r.ports()
			}
		}
	}
	if r.sometimes(8) {
		_, self := out.Self(d)
		self.Selector = r.selector()
	}
	if r.sometimes(12) {
		version := pick(r, 4, 6)
		out.IPVersion = &version
	}
	e := r.entity()
	_, peer := out.Peer(d)
	e.Ports, e.NotPorts = peer.Ports, peer.NotPorts
	*peer = e
	return out // ports of the destination stay where they are: at the peer for egress, at the pod itself for ingress
}

func (r random) policy(i int) calico.Policy {
	p := calico.Policy{Kind: calico.KindNetworkPolicy, Namespace: pick(r, "one", "two"), Name: fmt.Sprintf("p%d", i), Stored: r.sometimes(8)}
	if r.sometimes(3) {
		p.Kind, p.Namespace = calico.KindGlobalNetworkPolicy, ""
		if r.sometimes(2) {
			p.Spec.NamespaceSelector = pick(r, "all()", "projectcalico.org/name == 'one'", "team == 'red'", "team != 'red'")
		}
	}
	p.Spec.Tier = pick(r, "", "", "", "first", "open", "last")
	if r.sometimes(2) {
		order := float64(pick(r, 1, 2, 3, 1000, 2000))
		p.Spec.Order = &order
	}
	if !r.sometimes(4) {
		p.Spec.Selector = r.selector()
	}
	for range r.IntN(4) {
		p.Spec.Ingress = append(p.Spec.Ingress, r.rule(policy.Ingress))
	}
	for range r.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, r.rule(policy.Egress))
	}
	switch r.IntN(4) {
	case 0:
		p.Spec.Types = []networkingv1.PolicyType{"Ingress"}
	case 1:
		p.Spec.Types = []networkingv1.PolicyType{"Ingress", "Egress"}
	}
	return p
}

func (r random) set() *calico.Set {
	s := &calico.Set{
		Tiers: []calico.Tier{{Name: "first", Order: 1, DefaultAction: calico.Deny}, {Name: "open", Order: 2, DefaultAction: calico.Pass}, {Name: "last", Order: 2_000_000, DefaultAction: calico.Deny}},
		NetworkSets: []calico.NetworkSet{
			{Name: "global", Labels: map[string]string{"a": "x"}, Nets: []string{"198.51.100.0/24", "fd00:2::/32"}},
			{Name: "local", Namespace: "one", Labels: map[string]string{"b": "y"}, Nets: []string{"203.0.113.0/24"}},
		},
	}
	if r.sometimes(2) {
		s.NetworkSets = nil
	}
	for i := range 1 + r.IntN(4) {
		s.Policies = append(s.Policies, r.policy(i))
	}
	if r.sometimes(3) {
		s.Kubernetes = append(s.Kubernetes, r.kubernetes())
	}
	return s
}

func (r random) kubernetes() networkingv1.NetworkPolicy {
	var np networkingv1.NetworkPolicy
	np.Namespace, np.Name = pick(r, "one", "two"), "k"
	if r.sometimes(2) {
		np.Spec.PodSelector.MatchLabels = map[string]string{"a": pick(r, "x", "y")}
	}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"b": "x"}}}}}}
	if r.sometimes(2) {
		port := intstr.FromInt32(80)
		np.Spec.Ingress[0].Ports = []networkingv1.NetworkPolicyPort{{Port: &port}}
	}
	return np
}

// cluster of random pods, in namespaces with the labels that the conversions were given, and others for peers.
func (r random) cluster(known map[string]map[string]string) *reference.NetworkPolicies {
	c := &reference.NetworkPolicies{}
	for name, labels := range known {
		c.Namespaces = append(c.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	}
	slices.SortFunc(c.Namespaces, func(a, b corev1.Namespace) int { return strings.Compare(a.Name, b.Name) })
	for i := range 6 {
		var pod corev1.Pod
		pod.Name, pod.Namespace, pod.Labels = fmt.Sprint(i), pick(r, "one", "two", "three"), map[string]string{}
		for _, key := range []string{"a", "b"} {
			if v := pick(r, "", "x", "y", "z", "w"); v != "" {
				pod.Labels[key] = v
			}
		}
		pod.Status.Phase = corev1.PodRunning
		pod.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: pick(r, "http", "web"), ContainerPort: pick(r, int32(80), 85, 8080)}}}}
		for _, ip := range []string{fmt.Sprintf(pick(r, "10.1.2.%d", "10.1.9.%d", "10.7.0.%d", "192.0.2.%d", "198.51.100.%d", "172.16.0.%d"), i+1), fmt.Sprintf(pick(r, "fd00:1::%d", "fd00:2::%d", "2001:db8::%d"), i+1)} {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: ip})
		}
		pod.Status.PodIP = pod.Status.PodIPs[0].IP
		c.Pods = append(c.Pods, pod)
	}
	return c
}

var outside = []string{"192.0.2.7", "192.0.2.99", "10.1.3.3", "10.200.0.1", "8.8.8.8", "169.254.169.254", "198.51.100.200", "203.0.113.9", "fd00:1::99", "fd00:2::99", "2001:db8::99"}

// flow from or to a pod.
func (r random) flow(c *reference.NetworkPolicies) (policy.Direction, policy.Flow) {
	pod := &c.Pods[r.IntN(len(c.Pods))]
	self := pick(r, policy.PodAddresses(pod)...)
	var peers []netip.Addr
	for i := range c.Pods {
		peers = append(peers, policy.PodAddresses(&c.Pods[i])...)
	}
	for _, a := range outside {
		peers = append(peers, netip.MustParseAddr(a))
	}
	peers = slices.DeleteFunc(peers, func(a netip.Addr) bool { return a.Is4() != self.Is4() || slices.Contains(policy.PodAddresses(pod), a) })
	f := policy.Flow{Source: pick(r, peers...), Destination: self, Protocol: pick(r, policy.TCP, policy.TCP, policy.UDP, policy.SCTP, policy.ICMP, 47), Port: pick(r, uint16(80), 85, 91, 443, 8080, 65535)}
	if !f.Protocol.HasPorts() {
		f.Port = 0
	}
	if r.sometimes(2) {
		f.Source, f.Destination = f.Destination, f.Source
		return policy.Egress, f
	}
	return policy.Ingress, f
}
