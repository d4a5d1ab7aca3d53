package oracle

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
	"github.com/kidoban/kidoban/internal/resolver"
)

// clusterDice draws ClusterNetworkPolicies for the clusters of dice.
type clusterDice struct{ *dice }

func (d clusterDice) nodes() (out []corev1.Node) {
	for _, name := range []string{"node1", "node2"} {
		n := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}}
		for _, prefix := range []string{"172.16.0.", "fd00:1::"} {
			n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: prefix + name[len("node"):]})
		}
		out = append(out, n)
	}
	return out
}

func (d clusterDice) clusterPolicy(name string) cnp.ClusterNetworkPolicy {
	p := cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	p.Spec.Tier, p.Spec.Priority = pick(d.dice, cnp.AdminTier, cnp.BaselineTier), int32(d.IntN(3))
	if d.oneIn(2) {
		p.Spec.Subject.Namespaces = d.clusterSelector()
	} else {
		p.Spec.Subject.Pods = d.namespacedPod()
	}
	actions := []cnp.ClusterNetworkPolicyRuleAction{cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass}
	for range d.IntN(5) {
		from := d.clusterPeer(0)
		p.Spec.Ingress = append(p.Spec.Ingress, cnp.ClusterNetworkPolicyIngressRule{Action: pick(d.dice, actions...), Protocols: d.protocols(),
			From: []cnp.ClusterNetworkPolicyIngressPeer{{Namespaces: from.Namespaces, Pods: from.Pods}}})
	}
	for range d.IntN(5) {
		p.Spec.Egress = append(p.Spec.Egress, cnp.ClusterNetworkPolicyEgressRule{Action: pick(d.dice, actions...), Protocols: d.protocols(),
			To: []cnp.ClusterNetworkPolicyEgressPeer{d.clusterPeer(4), d.clusterPeer(4)}})
	}
	return p
}

// clusterSelector selects much: few namespaces and pods are drawn.
func (d clusterDice) clusterSelector() *metav1.LabelSelector {
	if d.oneIn(2) {
		return &metav1.LabelSelector{}
	}
	return d.selector()
}

func (d clusterDice) namespacedPod() *cnp.NamespacedPod {
	return &cnp.NamespacedPod{NamespaceSelector: *d.clusterSelector(), PodSelector: *d.clusterSelector()}
}

// clusterPeer draws a peer of ingress or, with more kinds, of egress.
func (d clusterDice) clusterPeer(more int) (p cnp.ClusterNetworkPolicyEgressPeer) {
	switch d.IntN(5 + more) {
	case 0, 1:
		p.Namespaces = d.clusterSelector()
	case 2, 3:
		p.Pods = d.namespacedPod()
	case 4:
		if !d.oneIn(4) {
			p.Pods = d.namespacedPod()
		} // else a kind of peer that is not known
	case 5, 6:
		p.Nodes = d.clusterSelector()
	default:
		a := pick(d.dice, d.addresses...)
		p.Networks = []cnp.CIDR{cnp.CIDR(netip.PrefixFrom(a, pick(d.dice, 0, 8, 16, 24, a.BitLen())).Masked().String())}
	}
	return p
}

func (d clusterDice) protocols() (out []cnp.ClusterNetworkPolicyProtocol) {
	for range d.IntN(3) {
		port := pick(d.dice, nil, &cnp.Port{Number: pick[int32](d.dice, 53, 80, 8080)}, &cnp.Port{Range: &cnp.PortRange{Start: 1, End: pick[int32](d.dice, 80, 8080, 65535)}})
		out = append(out, pick(d.dice,
			cnp.ClusterNetworkPolicyProtocol{TCP: &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{UDP: &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{SCTP: &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: pick(d.dice, "http", "dns", "metrics")}))
	}
	return out
}

// clusterNode is one node with all that the controller writes for a cluster.
func clusterNode(t *testing.T, name string, o *objects, r *resolver.Resolver, policies []cnp.ClusterNetworkPolicy) *node.Node {
	t.Helper()
	n := node.New(node.Options{SharedNamespace: sharedNamespace, ClusterPolicies: true})
	for _, key := range sortedNames(o.pods) {
		if o.pods[key].Spec.NodeName == name {
			n.SetPod(began, o.pods[key])
		}
	}
	for i := range policies {
		name, _ := r.ClusterEndpointName(policies[i].Name)
		e, _ := r.ClusterEndpoint(name)
		for _, g := range e.Groups {
			setSlices(t, n, r, g)
		}
		if err := n.SetClusterPolicyEndpoint(began, &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: *e.Spec}); err != nil {
			t.Fatal(err)
		}
	}
	for _, key := range sortedNames(o.policies) {
		name, _ := r.EndpointName(key)
		e, _ := r.Endpoint(name)
		for _, g := range e.Groups {
			setSlices(t, n, r, g)
		}
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, Spec: *e.Spec}
		if err := n.SetPolicyEndpoint(began, pe); err != nil {
			t.Fatal(err)
		}
	}
	for ns := range n.WantedNamespaces(began) {
		if obj := o.namespaces[ns]; obj != nil {
			n.SetNamespace(began, ns, obj.Labels, false)
		}
		n.NamespaceSynced(began, ns)
	}
	n.ClusterSynced(began)
	n.Commit()
	return n
}

func setSlices(t *testing.T, n *node.Node, r *resolver.Resolver, g policy.GroupKey) {
	t.Helper()
	for _, name := range r.Slices(g) {
		spec, _ := r.Slice(name)
		if err := n.SetSlice(began, policy.ReadSlice(sliceObject(name, spec))); err != nil {
			t.Fatal(err)
		}
	}
}

// TestClusterPoliciesThroughThePipeline compares the maps of two nodes with the reference evaluator: all tiers, both directions, and
// traffic of pods to their own node.
func TestClusterPoliciesThroughThePipeline(t *testing.T) {
	const clusters, flowsOfEach = 150, 200
	denied := map[policy.Tier]int{}
	for seed := range uint64(clusters) {
		d := clusterDice{newDice(seed, 1<<40)}
		o := d.objects()
		c := &reference.Cluster{NetworkPolicies: *o.cluster(), Nodes: d.nodes()}
		r := newResolver()
		events := o.events()
		for i := range events {
			feed(r, &events[i])
		}
		for i := range c.Nodes {
			r.SetNode(resolver.NodeOf(&c.Nodes[i]))
		}
		for i := range 1 + d.IntN(6) {
			c.ClusterPolicies = append(c.ClusterPolicies, d.clusterPolicy(fmt.Sprint("c", i)))
		}
		for i := range c.ClusterPolicies {
			r.SetClusterPolicy(&c.ClusterPolicies[i])
		}
		r.Start(resolver.Existing{})
		nodes, own := map[string]*node.Node{}, map[netip.Addr]string{}
		for i := range c.Nodes {
			name := c.Nodes[i].Name
			nodes[name] = clusterNode(t, name, o, r, c.ClusterPolicies)
			for _, a := range resolver.NodeOf(&c.Nodes[i]).Addresses {
				own[a] = name
			}
		}
		draw := newFlows(d.dice, &c.NetworkPolicies)
		for range flowsOfEach {
			f := draw.flow()
			for _, dir := range policy.Directions {
				pod := c.PodAt(f.Self(dir))
				if pod == nil || f.Source == f.Destination || slices.Contains([]policy.Protocol{0, 47, 255}, f.Protocol) {
					continue
				}
				want := c.Evaluate(dir, f)
				lookUp := nodes[pod.Spec.NodeName].Maps().Lookup
				if own[f.Peer(dir)] == pod.Spec.NodeName {
					if dir == policy.Ingress {
						continue // no program judges what the node opens
					}
					lookUp = nodes[pod.Spec.NodeName].Maps().LookupOwn
				}
				got, _ := lookUp(dir, f)
				if (got.Action == policy.Allow) != want.Allowed() || got.Action == policy.Deny && got.Tier != want.Tier {
					t.Fatalf("cluster %d, %s of %v on %s: want %+v, got %+v", seed, dir, f, pod.Spec.NodeName, want, got)
				}
				if got.Action == policy.Deny {
					denied[got.Tier]++
				}
			}
		}
	}
	for _, tier := range []policy.Tier{policy.TierAdmin, policy.TierNetworkPolicy, policy.TierBaseline} {
		if denied[tier] < 100 {
			t.Errorf("%s denied %d flows only", tier, denied[tier])
		}
	}
}
