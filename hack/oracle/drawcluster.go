package oracle

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

var nodeNames = []string{"node1", "node2"}

func (d *dice) node(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: d.labels()}}
	for _, prefix := range []string{"172.16.0.", "fd00:1::"} {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: prefix + name[len("node"):]})
	}
	return n
}

func (d *dice) clusterPolicy(name string) *cnp.ClusterNetworkPolicy {
	p := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name)}}
	p.Labels = d.enforcement()
	p.Spec.Tier, p.Spec.Priority = pick(d, cnp.AdminTier, cnp.BaselineTier), int32(d.IntN(3))
	if d.oneIn(2) {
		p.Spec.Subject.Namespaces = d.clusterSelector()
	} else {
		p.Spec.Subject.Pods = d.namespacedPod()
	}
	actions := []cnp.ClusterNetworkPolicyRuleAction{cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyRuleActionPass}
	for range d.IntN(5) {
		from := d.clusterPeer(0)
		p.Spec.Ingress = append(p.Spec.Ingress, cnp.ClusterNetworkPolicyIngressRule{Action: pick(d, actions...), Protocols: d.protocols(),
			From: []cnp.ClusterNetworkPolicyIngressPeer{{Namespaces: from.Namespaces, Pods: from.Pods}}})
	}
	for range d.IntN(5) {
		p.Spec.Egress = append(p.Spec.Egress, cnp.ClusterNetworkPolicyEgressRule{Action: pick(d, actions...), Protocols: d.protocols(),
			To: []cnp.ClusterNetworkPolicyEgressPeer{d.clusterPeer(4), d.clusterPeer(4)}})
	}
	return p
}

// clusterSelector selects much: few namespaces and pods are drawn.
func (d *dice) clusterSelector() *metav1.LabelSelector {
	if d.oneIn(2) {
		return &metav1.LabelSelector{}
	}
	return d.selector()
}

func (d *dice) namespacedPod() *cnp.NamespacedPod {
	return &cnp.NamespacedPod{NamespaceSelector: *d.clusterSelector(), PodSelector: *d.clusterSelector()}
}

// clusterPeer draws a peer of ingress or, with more kinds, of egress.
func (d *dice) clusterPeer(more int) (p cnp.ClusterNetworkPolicyEgressPeer) {
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
		a := pick(d, d.addresses...)
		p.Networks = []cnp.CIDR{cnp.CIDR(netip.PrefixFrom(a, pick(d, 0, 8, 16, 24, a.BitLen())).Masked().String())}
	}
	return p
}

func (d *dice) protocols() (out []cnp.ClusterNetworkPolicyProtocol) {
	for range d.IntN(3) {
		port := pick(d, nil, &cnp.Port{Number: pick[int32](d, 53, 80, 8080)}, &cnp.Port{Range: &cnp.PortRange{Start: 1, End: pick[int32](d, 80, 8080, 65535)}})
		out = append(out, pick(d,
			cnp.ClusterNetworkPolicyProtocol{TCP: &cnp.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{UDP: &cnp.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{SCTP: &cnp.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}},
			cnp.ClusterNetworkPolicyProtocol{DestinationNamedPort: pick(d, "http", "dns", "metrics")}))
	}
	return out
}
