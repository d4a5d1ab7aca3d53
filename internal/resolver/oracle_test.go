package resolver

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// model is the cluster of a test. It answers from Kubernetes' documentation, without any of the resolver's
// code except Pod.
type model struct {
	namespaces map[string]map[string]string
	pods       map[types.NamespacedName]Pod
	policies   map[types.NamespacedName]*networkingv1.NetworkPolicy
	// broken are later versions of some of these policies, of which no part can be enforced.
	broken          map[types.NamespacedName]*networkingv1.NetworkPolicy
	clusterPolicies map[string]*cnp.ClusterNetworkPolicy
	nodes           map[string]Node
}

// flow is the part of a flow that rules of one direction look at: the peer's address and the destination
// port.
type flow struct {
	peer     netip.Addr
	protocol policy.Protocol
	port     uint16
}

func selects(s *metav1.LabelSelector, set map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(set))
}

// peersAt returns the pods that have an address.
func (m *model) peersAt(a netip.Addr) []Pod {
	var out []Pod
	for _, p := range m.pods {
		if p.Phase != corev1.PodSucceeded && p.Phase != corev1.PodFailed && !p.HostNetwork && slices.Contains(p.Addresses, a) {
			out = append(out, p)
		}
	}
	return out
}

// known returns the pods whose namespace exists.
func (m *model) known(pods []Pod) []Pod {
	return slices.DeleteFunc(pods, func(p Pod) bool {
		_, ok := m.namespaces[p.Key.Namespace]
		return !ok
	})
}

// selectsPod reports whether selectors of a policy in a namespace select the pod.
func (m *model) selectsPod(from string, namespaces, pods *metav1.LabelSelector, p Pod) bool {
	if pods == nil {
		pods = &metav1.LabelSelector{}
	}
	if !selects(pods, p.Labels) {
		return false
	}
	if namespaces == nil {
		return p.Key.Namespace == from
	}
	set, known := m.namespaces[p.Key.Namespace]
	return known && selects(namespaces, set)
}

// allows reports whether a rule of the policy allows the flow; selected is the pod that the policy selects.
func (m *model) allows(np *networkingv1.NetworkPolicy, d policy.Direction, selected Pod, f flow) bool {
	type rule struct {
		peers []networkingv1.NetworkPolicyPeer
		ports []networkingv1.NetworkPolicyPort
	}
	var rules []rule
	if d == policy.Ingress {
		for _, r := range np.Spec.Ingress {
			rules = append(rules, rule{r.From, r.Ports})
		}
	} else {
		for _, r := range np.Spec.Egress {
			rules = append(rules, rule{r.To, r.Ports})
		}
	}
	return slices.ContainsFunc(rules, func(r rule) bool {
		if len(r.peers) == 0 {
			r.peers = []networkingv1.NetworkPolicyPeer{{}}
		}
		return slices.ContainsFunc(r.peers, func(peer networkingv1.NetworkPolicyPeer) bool {
			var named []Pod // the pods whose names for ports count
			switch {
			case peer.IPBlock != nil:
				if blockHolds(peer.IPBlock.CIDR, peer.IPBlock.Except, f.peer) == 0 {
					return false
				}
				named = m.known(m.peersAt(f.peer))
			case peer.PodSelector == nil && peer.NamespaceSelector == nil: // everyone
				named = m.known(m.peersAt(f.peer))
			default:
				for _, p := range m.peersAt(f.peer) {
					if m.selectsPod(np.Namespace, peer.NamespaceSelector, peer.PodSelector, p) {
						named = append(named, p)
					}
				}
				if len(named) == 0 {
					return false
				}
			}
			if d == policy.Ingress {
				named = []Pod{selected}
			}
			return len(r.ports) == 0 || slices.ContainsFunc(r.ports, func(p networkingv1.NetworkPolicyPort) bool { return portAllows(p, named, f) })
		})
	})
}

func portAllows(p networkingv1.NetworkPolicyPort, named []Pod, f flow) bool {
	protocol := "TCP"
	if p.Protocol != nil {
		protocol = string(*p.Protocol)
	}
	switch {
	case f.protocol.String() != protocol:
		return false
	case p.Port == nil:
		return true
	case p.Port.Type == intstr.String:
		return slices.ContainsFunc(named, func(pod Pod) bool {
			return slices.Contains(pod.Ports, policy.NamedPort{Protocol: f.protocol, Name: p.Port.StrVal, Port: f.port})
		})
	case p.EndPort != nil:
		return p.Port.IntVal <= int32(f.port) && int32(f.port) <= *p.EndPort
	}
	return p.Port.IntVal == int32(f.port)
}

// specAllows reports whether a PolicyEndpoint allows the flow.
func specAllows(r *Resolver, s snapshot, e Endpoint, d policy.Direction, selected Pod, f flow) bool {
	rules := e.Spec.Ingress
	if d == policy.Egress {
		rules = e.Spec.Egress
	}
	return slices.ContainsFunc(rules, func(rule v1alpha1.Rule) bool {
		peer := len(rule.Peers) == 0 || slices.ContainsFunc(rule.Peers, func(p v1alpha1.Peer) bool {
			if p.Group == nil {
				return peersHold([]v1alpha1.Peer{p}, f.peer) > 0
			}
			key := policy.GroupKey{Namespace: e.Name.Namespace, Name: p.Group.Name}
			if p.Group.Shared {
				key.Namespace = r.options.SharedNamespace
			}
			members, complete := s.group(key)
			return complete && members[v1alpha1.CIDR(netip.PrefixFrom(f.peer, f.peer.BitLen()).String())]
		})
		return peer && (len(rule.Ports) == 0 || slices.ContainsFunc(rule.Ports, func(p v1alpha1.Port) bool {
			switch {
			case string(p.Protocol) != f.protocol.String():
				return false
			case p.Name != "":
				return slices.Contains(selected.Ports, policy.NamedPort{Protocol: f.protocol, Name: p.Name, Port: f.port})
			case p.Port == 0:
				return true
			}
			return p.Port <= int32(f.port) && int32(f.port) <= max(p.Port, p.EndPort)
		}))
	})
}
