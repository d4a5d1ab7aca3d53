package proof

import (
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
)

// owner of a label.
type owner uint8

const (
	ofPod owner = iota
	ofNamespace
	ofAccount
)

// field is a label, or with an empty key the name of a namespace or a service account.
type field struct {
	owner owner
	key   string
}

// labels are the fields that selectors ask for, with the values that they name.
type labels map[field][]string

// terms are all that policies tell flows of one direction in one namespace apart by.
type terms struct {
	self, peer labels
	prefixes   []netip.Prefix
	ports      []uint16 // each the first of a range, or the one after its last
	portNames  []string
	protocols  []policy.Protocol
	names      []string // domain names
}

// add the terms of a set, for a direction of flows of a namespace's pods.
func (t *terms) add(s *calico.Set, namespace string, d policy.Direction) {
	for i := range s.Policies {
		p := &s.Policies[i]
		if p.Namespace != "" && p.Namespace != namespace || !p.Isolates()[d] {
			continue
		}
		if selector, err := p.Selector(); err == nil {
			t.self.selector(selector)
		}
		for j := range p.Rules(d) {
			t.rule(&p.Rules(d)[j], p.Namespace, d)
		}
	}
	for i := range s.NetworkSets {
		t.networks(s.NetworkSets[i].Nets)
		t.names = append(t.names, s.NetworkSets[i].Domains...)
	}
	for i := range s.Cluster {
		t.cluster(&s.Cluster[i], d)
	}
	for i := range s.Kubernetes {
		if np := &s.Kubernetes[i]; np.Namespace == namespace && netpol.PolicyTypes(np)[d] {
			t.kubernetes(np, d)
		}
	}
}

func (t *terms) networks(list []string) {
	nets, _ := calico.ParseNets(list)
	t.prefixes = append(t.prefixes, nets...)
}

func (t *terms) rule(r *calico.Rule, namespace string, d policy.Direction) {
	for _, p := range []*calico.Protocol{r.Protocol, r.NotProtocol} {
		if p != nil {
			t.protocols = append(t.protocols, policy.Protocol(*p))
		}
	}
	_, self := r.Self(d)
	_, peer := r.Peer(d)
	for _, end := range []struct {
		entity *calico.EntityRule
		labels labels
	}{{self, t.self}, {peer, t.peer}} {
		t.networks(end.entity.Nets)
		t.networks(end.entity.NotNets)
		t.names = append(t.names, end.entity.Domains...)
		for _, p := range slices.Concat(end.entity.Ports, end.entity.NotPorts) {
			t.port(p.Name, int(p.First), int(p.Last))
		}
		positive, negative, _ := end.entity.Selectors(namespace)
		for _, selector := range []*calico.Selector{positive, negative} {
			if selector != nil {
				end.labels.selector(selector)
			}
		}
	}
}

func (t *terms) port(name string, first, last int) {
	if name != "" {
		t.portNames = append(t.portNames, name)
		return
	}
	for _, n := range []int{first, last + 1} {
		if n >= 1 && n <= 65535 {
			t.ports = append(t.ports, uint16(n))
		}
	}
}

// fieldOf the key that a selector of Calico's has.
func fieldOf(key string) field {
	switch key {
	case "projectcalico.org/namespace", "pcns.projectcalico.org/name", "pcns." + corev1.LabelMetadataName:
		return field{owner: ofNamespace}
	case "projectcalico.org/serviceaccount", "pcsa.projectcalico.org/name":
		return field{owner: ofAccount}
	}
	if key, ok := strings.CutPrefix(key, "pcns."); ok {
		return field{ofNamespace, key}
	}
	if key, ok := strings.CutPrefix(key, "pcsa."); ok {
		return field{ofAccount, key}
	}
	return field{ofPod, key}
}

func (l labels) selector(s *calico.Selector) {
	for _, o := range s.Of {
		l.selector(o)
	}
	if s.Key == "" || s.Key == "projectcalico.org/orchestrator" {
		return
	}
	f := fieldOf(s.Key)
	l[f] = append(l[f], s.Values...)
	if s.Op == calico.OpPrefix || s.Op == calico.OpSuffix || s.Op == calico.OpInfix {
		v := s.Values[0]
		l[f] = append(l[f], v+"x", "x"+v, "x"+v+"x")
	}
}

func (l labels) labelSelector(o owner, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	add := func(key string, values ...string) {
		f := field{o, key}
		if o == ofNamespace && key == corev1.LabelMetadataName {
			f.key = ""
		}
		l[f] = append(l[f], values...)
	}
	for k, v := range s.MatchLabels {
		add(k, v)
	}
	for _, r := range s.MatchExpressions {
		add(r.Key, r.Values...)
	}
}

func (t *terms) kubernetes(np *networkingv1.NetworkPolicy, d policy.Direction) {
	t.self.labelSelector(ofPod, &np.Spec.PodSelector)
	for _, r := range netpol.Rules(d, np) {
		for _, p := range r.Ports {
			t.kubernetesPort(&p)
		}
		for _, peer := range r.Peers {
			t.peer.labelSelector(ofPod, peer.PodSelector)
			t.peer.labelSelector(ofNamespace, peer.NamespaceSelector)
			if peer.NamespaceSelector == nil && peer.IPBlock == nil {
				f := field{owner: ofNamespace}
				t.peer[f] = append(t.peer[f], np.Namespace)
			}
			if b := peer.IPBlock; b != nil {
				t.networks(append([]string{b.CIDR}, b.Except...))
			}
		}
	}
}

func (t *terms) kubernetesPort(p *networkingv1.NetworkPolicyPort) {
	switch {
	case p.Port == nil:
	case p.EndPort != nil:
		t.port("", p.Port.IntValue(), int(*p.EndPort))
	default:
		t.port(p.Port.StrVal, int(p.Port.IntVal), int(p.Port.IntVal))
	}
}

// cluster adds the terms of a ClusterNetworkPolicy.
func (t *terms) cluster(p *cnp.ClusterNetworkPolicy, d policy.Direction) {
	selected := func(l labels, namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod) {
		l.labelSelector(ofNamespace, namespaces)
		if pods != nil {
			l.labelSelector(ofNamespace, &pods.NamespaceSelector)
			l.labelSelector(ofPod, &pods.PodSelector)
		}
	}
	protocols := func(list []cnp.ClusterNetworkPolicyProtocol) {
		for _, p := range list {
			t.clusterPort(&p)
		}
	}
	selected(t.self, p.Spec.Subject.Namespaces, p.Spec.Subject.Pods)
	if d == policy.Ingress {
		for _, r := range p.Spec.Ingress {
			for _, peer := range r.From {
				selected(t.peer, peer.Namespaces, peer.Pods)
			}
			protocols(r.Protocols)
		}
		return
	}
	for _, r := range p.Spec.Egress {
		for _, peer := range r.To {
			selected(t.peer, peer.Namespaces, peer.Pods)
			for _, n := range peer.Networks {
				t.networks([]string{string(n)})
			}
			for _, n := range peer.DomainNames {
				t.names = append(t.names, string(n))
			}
		}
		protocols(r.Protocols)
	}
}

func (t *terms) clusterPort(p *cnp.ClusterNetworkPolicyProtocol) {
	var port *cnp.Port
	switch {
	case p.TCP != nil:
		port = p.TCP.DestinationPort
	case p.UDP != nil:
		port = p.UDP.DestinationPort
	case p.SCTP != nil:
		port = p.SCTP.DestinationPort
	default:
		t.port(p.DestinationNamedPort, 0, 0)
	}
	switch {
	case port == nil:
	case port.Range != nil:
		t.port("", int(port.Range.Start), int(port.Range.End))
	default:
		t.port("", int(port.Number), int(port.Number))
	}
}
