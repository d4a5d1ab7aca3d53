package model

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// random draws clusters of few labels, ports and blocks, so that policies meet.
type random struct{ *rand.Rand }

func pick[T any](r random, of ...T) T { return of[r.IntN(len(of))] }

func (r random) labels() map[string]string {
	return map[string]string{"app": pick(r, "a", "b", "c"), "tier": pick(r, "x", "y"), "hash": fmt.Sprint(r.IntN(1000))}
}

func (r random) selector() *metav1.LabelSelector {
	switch r.IntN(5) {
	case 0:
		return &metav1.LabelSelector{}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"a"}}}}
	case 2:
		return &metav1.LabelSelector{MatchLabels: map[string]string{"tier": pick(r, "x", "y")}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": pick(r, "a", "b", "c")}}
}

func (r random) peer() networkingv1.NetworkPolicyPeer {
	switch r.IntN(5) {
	case 0:
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: pick(r, "10.0.0.0/24", "10.0.0.0/29", "0.0.0.0/0", "fd00::/64"), Except: pick(r, nil, []string{"10.0.0.4/31"})}}
	case 1:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: r.selector()}
	case 2:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: r.selector(), PodSelector: r.selector()}
	}
	return networkingv1.NetworkPolicyPeer{PodSelector: r.selector()}
}

func (r random) port() networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{}
	if protocol := pick(r, "", corev1.ProtocolTCP, corev1.ProtocolUDP); protocol != "" {
		p.Protocol = &protocol
	}
	switch r.IntN(4) {
	case 0:
	case 1:
		name := intstr.FromString("http")
		p.Port = &name
	default:
		n := intstr.FromInt32(pick[int32](r, 1, 80, 81, 82, 443, 65535))
		p.Port = &n
		if end := n.IntVal + r.Int32N(3); r.IntN(2) == 0 && end <= 65535 {
			p.EndPort = &end
		}
	}
	return p
}

func many[T any](r random, most int, draw func() T) []T {
	var out []T
	for range r.IntN(most + 1) {
		out = append(out, draw())
	}
	return out
}

func (r random) policy(i int) networkingv1.NetworkPolicy {
	np := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, "a", "b"), Name: fmt.Sprint("p", i)}}
	np.Spec.PodSelector = *r.selector()
	np.Spec.PolicyTypes = pick(r, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	np.Spec.Ingress = many(r, 2, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: many(r, 2, r.peer), Ports: many(r, 2, r.port)}
	})
	np.Spec.Egress = many(r, 2, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: many(r, 2, r.peer), Ports: many(r, 2, r.port)}
	})
	return np
}

func (r random) clusterPeer() cnp.ClusterNetworkPolicyEgressPeer {
	switch r.IntN(6) {
	case 0:
		return cnp.ClusterNetworkPolicyEgressPeer{Networks: pick(r, []cnp.CIDR{"10.0.0.0/29"}, []cnp.CIDR{"0.0.0.0/0"}, []cnp.CIDR{"fd00::/64", "10.0.0.4/31"}, []cnp.CIDR{"192.0.2.0/24"})}
	case 1:
		return cnp.ClusterNetworkPolicyEgressPeer{Nodes: r.selector()}
	case 2:
		return cnp.ClusterNetworkPolicyEgressPeer{DomainNames: []cnp.DomainName{"example.com"}}
	case 3:
		return cnp.ClusterNetworkPolicyEgressPeer{Pods: &cnp.NamespacedPod{NamespaceSelector: *r.selector(), PodSelector: *r.selector()}}
	}
	return cnp.ClusterNetworkPolicyEgressPeer{Namespaces: r.selector()}
}

func (r random) protocol() cnp.ClusterNetworkPolicyProtocol {
	port := &cnp.Port{Number: pick[int32](r, 1, 80, 81, 443)}
	if r.IntN(3) == 0 {
		port = &cnp.Port{Range: &cnp.PortRange{Start: 79, End: pick[int32](r, 80, 83, 65535)}}
	}
	switch r.IntN(5) {
	case 0:
		return cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: "http"}
	case 1:
		return cnp.ClusterNetworkPolicyProtocol{UDP: &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}}
	}
	return cnp.ClusterNetworkPolicyProtocol{TCP: &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}}
}

// clusterPolicy draws one with few priorities, so that some are equal, and now and then with a rule that cannot be honoured.
func (r random) clusterPolicy(i int) cnp.ClusterNetworkPolicy {
	p := cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("c", i)}}
	p.Spec.Tier, p.Spec.Priority = pick(r, cnp.AdminTier, cnp.AdminTier, cnp.BaselineTier), r.Int32N(3)
	p.Spec.Subject.Namespaces = r.selector()
	if r.IntN(2) == 0 {
		p.Spec.Subject = cnp.ClusterNetworkPolicySubject{Pods: &cnp.NamespacedPod{NamespaceSelector: *r.selector(), PodSelector: *r.selector()}}
	}
	action := func() cnp.ClusterNetworkPolicyRuleAction {
		return pick(r, cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass)
	}
	p.Spec.Ingress = many(r, 3, func() (rule cnp.ClusterNetworkPolicyIngressRule) {
		rule.Action, rule.Protocols = action(), many(r, 2, r.protocol)
		for range 1 + r.IntN(2) {
			rule.From = append(rule.From, pick(r,
				cnp.ClusterNetworkPolicyIngressPeer{Namespaces: r.selector()}, cnp.ClusterNetworkPolicyIngressPeer{Pods: &cnp.NamespacedPod{PodSelector: *r.selector()}}))
		}
		if r.IntN(20) == 0 {
			rule.From = append(rule.From, cnp.ClusterNetworkPolicyIngressPeer{})
		}
		return rule
	})
	p.Spec.Egress = many(r, 3, func() (rule cnp.ClusterNetworkPolicyEgressRule) {
		rule.Action, rule.Protocols = action(), many(r, 2, r.protocol)
		for range 1 + r.IntN(2) {
			rule.To = append(rule.To, r.clusterPeer())
		}
		return rule
	})
	return p
}

func (r random) cluster() *Cluster {
	c := &Cluster{}
	for i := range 2 {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node", i), Labels: r.labels()}}
		n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: fmt.Sprint("192.0.2.1", i)}, {Type: corev1.NodeHostName, Address: n.Name}}
		c.Nodes = append(c.Nodes, n)
	}
	for _, name := range []string{"a", "b"} {
		c.Namespaces = append(c.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: r.labels()}})
	}
	for i := range 8 {
		p := Pod{Workload: Workload{pick(r, "a", "b"), "Deployment", pick(r, "one", "two")}}
		p.Namespace, p.Name, p.Labels = p.Workload.Namespace, fmt.Sprint("pod", i), r.labels()
		p.Status.PodIPs = []corev1.PodIP{{IP: fmt.Sprint("10.0.0.", i+1)}}
		if r.IntN(2) == 0 {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: fmt.Sprint("fd00::", i+1)})
		}
		p.Spec.HostNetwork = r.IntN(8) == 0
		p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: pick[int32](r, 80, 8080)}}}}
		c.Pods = append(c.Pods, p)
	}
	for i := range r.IntN(6) {
		c.Policies = append(c.Policies, r.policy(i))
	}
	for i := range r.IntN(4) {
		c.ClusterPolicies = append(c.ClusterPolicies, r.clusterPolicy(i))
	}
	c.Complete()
	return c
}

// What is asked fast is what the reference says slowly.
func TestFastAnswersAreTheReferences(t *testing.T) {
	outside := netip.MustParseAddr("192.0.2.1")
	for seed := range uint64(25) {
		r := random{rand.New(rand.NewPCG(seed, 1))}
		c := r.cluster()
		reference, evaluator := c.Reference(), NewEvaluator(c)
		addresses := []netip.Addr{outside, netip.MustParseAddr("192.0.2.10")} // the second is a node's
		for i := range c.Pods {
			addresses = append(addresses, policy.PodAddresses(&c.Pods[i].Pod)...)
		}
		reach := NewReach(c, addresses...)
		for _, from := range addresses {
			for _, to := range addresses {
				if from.Is4() != to.Is4() || from == to {
					continue
				}
				set := portsOf(reach.place(from, evaluator.PodAt(from)), reach.place(to, evaluator.PodAt(to)))
				for _, port := range []Port{OtherPort, {policy.TCP, 1}, {policy.TCP, 80}, {policy.TCP, 83}, {policy.UDP, 443}, {policy.TCP, 8080}, {policy.TCP, 65535}, {policy.ICMP, 0}} {
					f := policy.Flow{Source: from, Destination: to, Protocol: port.Protocol, Port: port.Number}
					want := reference.Allows(f)
					if evaluator.Allows(f) != want {
						t.Fatalf("seed %d: %v: the evaluator says %v", seed, f, !want)
					}
					for _, d := range policy.Directions {
						got, want := evaluator.Evaluate(d, f), reference.NetworkPolicies.Evaluate(d, f)
						if got.Action != want.Action || got.Rule != want.Rule || len(got.Isolating) != len(want.Isolating) || got.Policy != nil && got.Policy.Name != want.Policy.Name {
							t.Fatalf("seed %d: %v %v: %+v, want %+v", seed, d, f, got, want)
						}
						if got, want := evaluator.Decide(d, f), reference.Evaluate(d, f); clusterRules(&got) != clusterRules(&want) {
							t.Fatalf("seed %d: %v %v: %s, want %s", seed, d, f, clusterRules(&got), clusterRules(&want))
						}
					}
					if port.Number > 0 && set.contains(port) != want {
						t.Fatalf("seed %d: %v: the set of ports %v says %v", seed, f, set, !want)
					}
					if port.Protocol == policy.ICMP && set.Others != want {
						t.Fatalf("seed %d: %v: protocols without ports are %v", seed, f, set.Others)
					}
				}
			}
		}
		checkMatrix(t, seed, c, reference)
	}
}

// clusterRules are the decision and the rules of ClusterNetworkPolicies that matched.
func clusterRules(d *reference.ClusterDecision) string {
	text := fmt.Sprint(d.Action, d.Tier)
	for _, r := range []*reference.ClusterRule{d.Admin, d.Baseline} {
		if r == nil {
			text += " none"
			continue
		}
		text += fmt.Sprint(" ", r.Policy.Name, r.Index, r.Action, r.Unreadable)
	}
	return text
}

// portsOf are those on which a reaches b.
func portsOf(a, b *place) (out PortSet) {
	for _, i := range intervals([2]*place{a, b}) {
		if a.accepts(policy.Egress, b, i.port()).all && b.accepts(policy.Ingress, a, i.port()).all {
			out.add(i)
		}
	}
	return out
}

func (s PortSet) contains(p Port) bool {
	return slices.ContainsFunc(s.Ranges, func(r policy.PortRange) bool {
		return r.Protocol == p.Protocol && r.First <= p.Number && p.Number <= r.Last
	})
}

// checkMatrix asks the reference about each pair of pods.
func checkMatrix(t *testing.T, seed uint64, c *Cluster, reference *reference.Cluster) {
	t.Helper()
	m := c.Matrix(MatrixOptions{Ports: []Port{{policy.TCP, 80}, OtherPort}})
	for i, row := range m.Rows {
		for j, column := range m.Columns {
			var allowed, denied bool
			for _, p := range c.Pods {
				for _, q := range c.Pods {
					if p.Workload != row || q.Workload != column.Workload || p.Name == q.Name || !policy.IsPeer(&p.Pod) || !policy.IsPeer(&q.Pod) {
						continue
					}
					for _, from := range policy.PodAddresses(&p.Pod) {
						for _, to := range policy.PodAddresses(&q.Pod) {
							if from.Is4() == to.Is4() {
								a := reference.Allows(policy.Flow{Source: from, Destination: to, Protocol: column.Port.Protocol, Port: column.Port.Number})
								allowed, denied = allowed || a, denied || !a
							}
						}
					}
				}
			}
			want := NotAsked
			switch {
			case allowed && denied:
				want = Partial
			case allowed:
				want = Allowed
			case denied:
				want = Denied
			}
			if m.Cells[i][j] != want {
				t.Fatalf("seed %d: %v → %v: %v, want %v", seed, row, column, m.Cells[i][j], want)
			}
		}
	}
}
