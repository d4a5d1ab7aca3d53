package resolver

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// normalized is what a NetworkPolicy says, without any knowledge of the cluster.
type normalized struct {
	// selects is the canonical podSelector. Where it is invalid, problems say so and nothing else here counts.
	selects selector
	invalid bool
	types   []v1alpha1.PolicyType
	// peers of each direction, each peer once.
	peers [2][]peerPorts
	// names are the named ports of ingress rules: those that the selected pods should have.
	names    []portName
	problems []Problem
}

// peerPorts is one peer with the union of the ports that the policy's rules give it.
type peerPorts struct {
	peer peer
	// name narrows an egress peer to the pods that give this name to a port; the ports are the numbers behind it then.
	name portName
	// origins are the policy's rules that name the peer, ascending.
	origins []int32
	ports   portSet
}

// peer is everyone, or pods, or a block of addresses.
type peer struct {
	everyone bool
	pods     *podSet
	block    block
}

// podSet is what a peer's selectors select: pods of the policy's own namespace where namespaces is nil. Where within is
// given, only those of their addresses count that lie in it.
type podSet struct {
	namespaces *selector
	pods       selector
	within     *block
}

// portName is a container port's name. The zero value is none.
type portName struct {
	protocol policy.Protocol
	name     string
}

func (n portName) String() string { return fmt.Sprintf("%s port %q", n.protocol, n.name) }

func (p *peer) key() string {
	switch {
	case p.everyone:
		return "everyone"
	case p.pods != nil:
		return p.pods.key()
	}
	return p.block.key()
}

func (s *podSet) key() string {
	if s.namespaces == nil {
		return digest(64, "local", s.pods.key())
	}
	return digest(64, append([]string{"shared", s.namespaces.key(), s.pods.key()}, s.within.keys()...)...)
}

// withinKey is the key of the block that narrows the set, or empty.
func (s *podSet) withinKey() string { return strings.Join(s.within.keys(), "") }

// normalize reads a NetworkPolicy. What cannot be honoured is left out, so that less is allowed, and is told among the problems.
func normalize(np *networkingv1.NetworkPolicy) *normalized {
	out := &normalized{}
	var err error
	if out.selects, err = parseSelector(&np.Spec.PodSelector); err != nil {
		out.invalid = true
		out.problem(v1alpha1.ReasonInvalidSelector, "spec.podSelector: %v", err)
		return out
	}
	ingress, egress := policyTypes(np)
	if ingress {
		out.types = append(out.types, v1alpha1.PolicyTypeIngress)
		b := builder{out: out, direction: policy.Ingress, byKey: map[string]int{}}
		for i, r := range np.Spec.Ingress {
			b.rule(fmt.Sprintf("spec.ingress[%d]", i), "from", int32(i), r.From, r.Ports)
		}
	}
	if egress {
		out.types = append(out.types, v1alpha1.PolicyTypeEgress)
		b := builder{out: out, direction: policy.Egress, byKey: map[string]int{}}
		for i, r := range np.Spec.Egress {
			b.rule(fmt.Sprintf("spec.egress[%d]", i), "to", int32(i), r.To, r.Ports)
		}
	}
	for d := range out.peers {
		for i := range out.peers[d] {
			out.peers[d][i].ports.canonical()
		}
	}
	return out
}

// policyTypes says in which directions a policy isolates. "If no policyTypes are specified, Ingress is set by default and
// Egress if the policy has any egress rules" (the API server writes this default down; a policy from elsewhere may come without).
func policyTypes(np *networkingv1.NetworkPolicy) (ingress, egress bool) {
	if len(np.Spec.PolicyTypes) == 0 {
		return true, len(np.Spec.Egress) > 0
	}
	return slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeIngress), slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
}

func (n *normalized) problem(reason, format string, args ...any) {
	n.problems = append(n.problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// builder collects the peers of one direction.
type builder struct {
	out       *normalized
	direction policy.Direction
	byKey     map[string]int
}

func (b *builder) rule(path, peersField string, index int32, from []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) {
	numbers, names := b.ports(path, ports)
	for _, p := range b.peers(path+"."+peersField, from) {
		if numbers.everything || len(numbers.ranges) > 0 {
			b.add(p, portName{}, index, numbers)
		}
		for _, name := range names {
			if p.pods == nil { // a name means something on pods only: on those of all namespaces, or of the block
				set := &podSet{namespaces: &selector{}}
				if block := p.block; !p.everyone {
					set.within = &block
				}
				p = peer{pods: set}
			}
			b.add(p, name, index, portSet{})
		}
	}
}

// ports reads a rule's ports: "if this field is empty or missing, this rule matches all ports". For egress, names are apart:
// the peers tell their numbers.
func (b *builder) ports(path string, ports []networkingv1.NetworkPolicyPort) (numbers portSet, names []portName) {
	numbers.everything = len(ports) == 0
	for i := range ports {
		r, err := parsePort(&ports[i])
		if err != nil {
			b.out.problem(v1alpha1.ReasonInvalidPort, "%s.ports[%d]: %v", path, i, err)
			continue
		}
		name := portName{r.Protocol, r.Name}
		switch {
		case r.Name == "":
			numbers.ranges = append(numbers.ranges, r)
		case b.direction == policy.Egress:
			names = append(names, name)
		default:
			numbers.ranges = append(numbers.ranges, r)
			if !slices.Contains(b.out.names, name) {
				b.out.names = append(b.out.names, name)
			}
		}
	}
	return numbers, names
}

// peers reads a rule's peers: "if this field is empty or missing, this rule matches all sources".
func (b *builder) peers(path string, from []networkingv1.NetworkPolicyPeer) []peer {
	if len(from) == 0 {
		return []peer{{everyone: true}}
	}
	var out []peer
	for i := range from {
		if p, ok := b.peer(fmt.Sprintf("%s[%d]", path, i), &from[i]); ok {
			out = append(out, p)
		}
	}
	return out
}

func (b *builder) peer(path string, from *networkingv1.NetworkPolicyPeer) (peer, bool) {
	if from.IPBlock != nil {
		if from.PodSelector != nil || from.NamespaceSelector != nil {
			b.out.problem(v1alpha1.ReasonInvalidPeer, "%s: ipBlock excludes selectors", path)
			return peer{}, false
		}
		block, err := parseBlock(from.IPBlock)
		if err != nil {
			b.out.problem(v1alpha1.ReasonInvalidPeer, "%s.ipBlock: %v", path, err)
		}
		return peer{block: block}, err == nil
	}
	if from.PodSelector == nil && from.NamespaceSelector == nil {
		b.out.problem(v1alpha1.ReasonInvalidPeer, "%s: one of podSelector, namespaceSelector and ipBlock is needed", path)
		return peer{}, false
	}
	pods, ok := b.selector(path+".podSelector", from.PodSelector)
	set := &podSet{pods: pods}
	if from.NamespaceSelector != nil {
		namespaces, valid := b.selector(path+".namespaceSelector", from.NamespaceSelector)
		set.namespaces, ok = &namespaces, ok && valid
	}
	return peer{pods: set}, ok
}

func (b *builder) selector(path string, s *metav1.LabelSelector) (selector, bool) {
	out, err := parseSelector(s)
	if err != nil {
		b.out.problem(v1alpha1.ReasonInvalidSelector, "%s: %v", path, err)
	}
	return out, err == nil
}

func (b *builder) add(p peer, name portName, origin int32, ports portSet) {
	key := digest(64, p.key(), name.protocol.String(), name.name)
	list := &b.out.peers[b.direction]
	i, ok := b.byKey[key]
	if !ok {
		i = len(*list)
		b.byKey[key] = i
		*list = append(*list, peerPorts{peer: p, name: name})
	}
	e := &(*list)[i]
	if n := len(e.origins); n == 0 || e.origins[n-1] != origin {
		e.origins = append(e.origins, origin)
	}
	e.ports.add(ports)
}
