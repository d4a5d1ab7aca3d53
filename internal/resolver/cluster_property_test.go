package resolver

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

func (d dice) node(name string) Node {
	n := Node{Name: name, Labels: randomLabels(d.Rand)}
	for range d.IntN(3) {
		if a := pick(d, d.addr(), netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", d.IntN(4)))); len(n.Addresses) == 0 || a != n.Addresses[0] {
			n.Addresses = append(n.Addresses, a)
		}
	}
	return n
}

func (d dice) clusterPolicy(generation int64) *cnp.ClusterNetworkPolicy {
	np := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: pick(d, "x", "y", "z"), UID: pick[types.UID](d, "1", "1", "2"), Generation: generation}}
	np.Labels = pick(d, nil, nil, nil, map[string]string{v1alpha1.LabelEnforcement: pick(d, "audit", "audit", "enforce", "Audit")})
	np.Spec.Tier, np.Spec.Priority = pick(d, cnp.AdminTier, cnp.BaselineTier), int32(d.IntN(3))
	switch d.IntN(8) {
	case 0: // a kind of subject that is not known
	case 1, 2, 3:
		np.Spec.Subject.Namespaces = d.selectorOrBroken()
	default:
		np.Spec.Subject.Pods = &cnp.NamespacedPod{NamespaceSelector: *randomSelector(d.Rand), PodSelector: *randomSelector(d.Rand)}
	}
	actions := []cnp.ClusterNetworkPolicyRuleAction{"Accept", "Accept", "Deny", "Deny", "Pass", "Pass", "Reject"}
	for range d.IntN(4) {
		r := cnp.ClusterNetworkPolicyIngressRule{Name: pick(d, "", "rule"), Action: pick(d, actions...), Protocols: d.protocols()}
		for range 1 + d.IntN(2) {
			p := d.clusterPeer(cnp.AdminTier, "Accept")
			r.From = append(r.From, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
		}
		np.Spec.Ingress = append(np.Spec.Ingress, r)
	}
	for range d.IntN(4) {
		r := cnp.ClusterNetworkPolicyEgressRule{Action: pick(d, actions...), Protocols: d.protocols()}
		for range 1 + d.IntN(3) {
			r.To = append(r.To, d.clusterPeer(np.Spec.Tier, r.Action))
		}
		np.Spec.Egress = append(np.Spec.Egress, r)
	}
	return np
}

func (d dice) selectorOrBroken() *metav1.LabelSelector {
	if d.IntN(20) == 0 {
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}
	}
	return randomSelector(d.Rand)
}

func (d dice) clusterPeer(tier cnp.Tier, action cnp.ClusterNetworkPolicyRuleAction) (p cnp.ClusterNetworkPolicyEgressPeer) {
	switch d.IntN(12) {
	case 0, 1, 2:
		p.Namespaces = d.selectorOrBroken()
	case 3, 4, 5:
		p.Pods = &cnp.NamespacedPod{NamespaceSelector: *d.selectorOrBroken(), PodSelector: *randomSelector(d.Rand)}
	case 6, 7:
		p.Nodes = d.selectorOrBroken()
	case 8, 9:
		p.Networks = pick(d, []cnp.CIDR{"10.0.0.0/8"}, []cnp.CIDR{"0.0.0.0/0", "::/0"}, []cnp.CIDR{"10.0.1.0/24", "2001:db8::10/124", "192.0.2.1/32"}, []cnp.CIDR{"10.0.0.300/8"})
	case 10:
		p.DomainNames = pick(d, []cnp.DomainName{"example.com"}, []cnp.DomainName{"API.example.com.", "*.example.org", "10.0.0.1"}, []cnp.DomainName{"*.Example.com"})
	} // else a kind of peer that is not known
	return p
}

func (d dice) protocols() (out []cnp.ClusterNetworkPolicyProtocol) {
	for range d.IntN(4) {
		var port *cnp.Port
		switch d.IntN(3) {
		case 0:
			port = &cnp.Port{Number: pick[int32](d, 53, 79, 80, 81)}
		case 1:
			port = &cnp.Port{Range: &cnp.PortRange{Start: pick[int32](d, 1, 53, 80), End: pick[int32](d, 80, 8080, 65535)}}
		}
		var p cnp.ClusterNetworkPolicyProtocol
		switch d.IntN(6) {
		case 0:
			p.TCP = &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}
		case 1:
			p.UDP = &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}
		case 2:
			p.SCTP = &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}
		case 3, 4:
			p.DestinationNamedPort = pick(d, "http", "dns", "nosuch")
		default:
			if d.IntN(4) > 0 {
				continue
			}
		}
		out = append(out, p)
	}
	return out
}

// clusterEvent draws a change of a node or a ClusterNetworkPolicy.
func clusterEvent(d dice, m *model, r *Resolver, step int64) (happening, Changes) {
	switch name := fmt.Sprintf("node%d", d.IntN(4)); d.IntN(8) {
	case 0, 1:
		n := d.node(name)
		m.nodes[name] = n
		return happening{name: fmt.Sprintf("node %v", n)}, r.SetNode(n)
	case 2:
		delete(m.nodes, name)
		return happening{name: "delete node " + name}, r.DeleteNode(name)
	case 3:
		n, ok := m.nodes[name]
		if !ok {
			return happening{name: "delete no node", noop: true}, r.DeleteNode(name)
		}
		return happening{name: "no change of node " + name, noop: true}, r.SetNode(n)
	case 4:
		name := pick(d, "x", "y", "z")
		delete(m.clusterPolicies, name)
		return happening{name: "delete cluster policy " + name}, r.DeleteClusterPolicy(name)
	default:
		np := d.clusterPolicy(step)
		m.clusterPolicies[np.Name] = np
		return happening{name: fmt.Sprintf("cluster policy %s %v %v", np.Name, np.Labels, np.Spec)}, r.SetClusterPolicy(np)
	}
}

// membersOf answers from the slices.
type membersOf map[policy.GroupKey]map[v1alpha1.CIDR]bool

func (m membersOf) Contains(g policy.GroupKey, a netip.Addr) bool {
	return m[g][v1alpha1.CIDR(netip.PrefixFrom(a, a.BitLen()).String())]
}

// checkClusterFlows compares ClusterPolicyEndpoints with the reference evaluator's reading of their policies.
func checkClusterFlows(t *testing.T, d dice, m *model, r *Resolver, s snapshot) {
	t.Helper()
	c, members := m.cluster(), membersOf(s.members(t))
	for _, key := range slices.SortedFunc(maps.Keys(m.pods), compareNames) {
		for range 10 {
			f, dir := d.flow(), pick(d, policy.Ingress, policy.Egress)
			if len(m.pods[key].Addresses) == 0 {
				continue
			}
			self := m.pods[key].Addresses[0]
			flow := policy.Flow{Source: self, Destination: f.peer, Protocol: f.protocol, Port: f.port}
			if dir == policy.Ingress {
				flow.Source, flow.Destination = f.peer, self
			}
			if !m.isClear(self) || !m.isClear(f.peer) || len(m.peersAt(self)) == 0 || m.peersAt(self)[0].Key != key {
				continue
			}
			got := reference.EvaluateAudit(dir, m.clusterPoliciesOf(t, r, m.pods[key]), flow, members, c.Names)
			c.EnforceAudited = false
			checkClusterDecision(t, dir, flow, c.Evaluate(dir, flow), got.Enforced)
			c.EnforceAudited = true
			checkClusterDecision(t, dir, flow, c.Evaluate(dir, flow), got.All)
		}
	}
}

func checkClusterDecision(t *testing.T, dir policy.Direction, flow policy.Flow, want reference.ClusterDecision, got reference.Decision[policy.Policy]) {
	t.Helper()
	rule := want.Admin
	if want.Baseline != nil {
		rule = want.Baseline
	}
	if got.Action != want.Action || got.Tier != want.Tier {
		t.Fatalf("%s %v: want %+v by %+v, got %+v of %+v", dir, flow, want, rule, got, got.Policy)
	}
	if got.Policy != nil {
		if name, index := got.Policy.ID.Name, int(got.Policy.Rules[dir][got.Rule].Origin[0]); name != rule.Policy.Name || index != rule.Index {
			t.Fatalf("%s %v: want rule %d of %s, got rule %d of %s: %+v", dir, flow, rule.Index, rule.Policy.Name, index, name, got.Policy)
		}
	}
}

// isClear reports whether an address is that of at most one pod, of a namespace that exists. The reference evaluator does not
// define the rest: addresses are in doubt for moments only.
func (m *model) isClear(a netip.Addr) bool {
	at := m.peersAt(a)
	return len(at) == 0 || len(at) == 1 && len(m.known(at)) == 1
}

// clusterPoliciesOf returns what an agent enforces for a pod.
func (m *model) clusterPoliciesOf(t *testing.T, r *Resolver, p Pod) (out []*policy.Policy) {
	t.Helper()
	for name := range m.clusterPolicies {
		name, _ := r.ClusterEndpointName(name)
		e, ok := r.ClusterEndpoint(name)
		if !ok {
			t.Fatalf("no ClusterPolicyEndpoint %s", name)
		}
		subject := &e.Spec.Subject
		if !selects(&subject.NamespaceSelector, m.namespaces[p.Key.Namespace]) || !selects(&subject.PodSelector, p.Labels) {
			continue
		}
		read, err := policy.FromClusterPolicyEndpoint(&v1alpha1.ClusterPolicyEndpoint{Spec: *e.Spec}, r.options.SharedNamespace)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, read.ForPod(p.Ports))
	}
	slices.SortFunc(out, policy.Compare)
	return out
}

// cluster returns the cluster for the reference evaluator, without NetworkPolicies: other tests have all tiers.
func (m *model) cluster() *reference.Cluster {
	c := &reference.Cluster{NetworkPolicies: reference.NetworkPolicies{Names: reference.Names{}}}
	for i := range 40 {
		name := [...]string{"example.com", "api.example.com", "a.b.example.org", "example.org"}[i%4]
		c.Names[name] = append(c.Names[name], netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%x", i)))
	}
	for name, labels := range m.namespaces {
		c.Namespaces = append(c.Namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}})
	}
	for _, p := range m.pods {
		pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.Key.Namespace, Name: p.Key.Name, Labels: p.Labels}}
		pod.Spec.HostNetwork, pod.Status.Phase = p.HostNetwork, p.Phase
		for _, a := range p.Addresses {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a.String()})
		}
		for _, n := range p.Ports {
			pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Ports: []corev1.ContainerPort{
				{Name: n.Name, ContainerPort: int32(n.Port), Protocol: corev1.Protocol(n.Protocol.String())},
			}})
		}
		c.Pods = append(c.Pods, pod)
	}
	for _, n := range m.nodes {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: n.Labels}}
		for _, a := range n.Addresses {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Address: a.String()})
		}
		c.Nodes = append(c.Nodes, node)
	}
	for _, np := range m.clusterPolicies {
		c.ClusterPolicies = append(c.ClusterPolicies, *np)
	}
	return c
}
