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

// maxPodSelector bounds the podSelector of a policy, in bytes of its protobuf encoding: controller and agents keep it for as long as the
// policy exists.
const maxPodSelector = 32 << 10

// maxNames is how many named ports of a policy's ingress rules are looked for among the ports of its pods, to report those that no pod has.
const maxNames = 100

// normalized is the content of a policy in a form that does not depend on the cluster.
type normalized struct {
	// selects is the canonical podSelector. If it is invalid, problems contains the reason, and of the
	// other fields only types is used.
	selects selector
	invalid bool
	// podSelector and enforcement are the policy's own.
	podSelector metav1.LabelSelector
	enforcement v1alpha1.Enforcement
	types       []v1alpha1.PolicyType
	// peers contains each peer of a direction once.
	peers [2][]peerPorts
	// names are the first maxNames named ports of ingress rules, which the selected pods should have.
	names    []portName
	problems []Problem
}

// peerPorts is one peer with the union of its ports in all rules of the policy.
type peerPorts struct {
	peer peer
	// name narrows an egress peer to the pods that have a port of this name; its ports are then the numbers
	// of that name.
	name portName
	// origins are the indexes of the policy's rules that contain the peer, ascending.
	origins []int32
	ports   portSet
}

// peer is every address, or pods, or DNS names, or a block of addresses.
type peer struct {
	everyone bool
	pods     *podSet
	names    []v1alpha1.DomainName // in canonical form, for egress
	block    block
}

// podSet is the set of pods that a peer selects, in the policy's own namespace if namespaces is nil. If
// within is set, only addresses in it count. If nodes is set, it is a set of nodes that pods selects instead.
type podSet struct {
	nodes      bool
	namespaces *selector
	pods       selector
	within     *block
}

// portName is the name of a container port. The zero value is no name.
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
	case len(p.names) > 0:
		return fmt.Sprintf("names %q", p.names)
	}
	return p.block.key()
}

func (s *podSet) key() string {
	if s.nodes {
		return digest(64, "nodes", s.pods.key())
	}
	if s.namespaces == nil {
		return digest(64, "local", s.pods.key())
	}
	return digest(64, append([]string{"shared", s.namespaces.key(), s.pods.key()}, s.within.keys()...)...)
}

// isShared reports whether the set's group is a shared one: it may have addresses of several namespaces.
func (s *podSet) isShared() bool { return s.nodes || s.namespaces != nil }

// withinKey is the key of the block that narrows the set, or empty.
func (s *podSet) withinKey() string { return strings.Join(s.within.keys(), "") }

// normalize reads a policy. It leaves out what cannot be enforced, so that less is allowed, and
// reports it in problems.
func normalize(np *Source) *normalized {
	out := &normalized{enforcement: enforcementOf(np.Labels)}
	ingress, egress := policyTypes(np.NetworkPolicy)
	if ingress {
		out.types = append(out.types, v1alpha1.PolicyTypeIngress)
	}
	if egress {
		out.types = append(out.types, v1alpha1.PolicyTypeEgress)
	}
	if np.IsOutline() { // nothing of it is known
		out.types, out.invalid = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress, v1alpha1.PolicyTypeEgress}, true
		out.problem(v1alpha1.ReasonInvalidSelector, "spec: the policy was not read")
		return out
	}
	err := policy.CheckEnforcement(np.Labels)
	if err != nil {
		out.problem(v1alpha1.ReasonInvalidEnforcement, "%v", err)
	}
	if size := np.Spec.PodSelector.Size(); size > maxPodSelector {
		out.invalid = true
		out.problem(v1alpha1.ReasonTooLarge, "spec.podSelector comes to %d bytes, of %d at most; the policy isolates all pods of its namespace", size, maxPodSelector)
		return out
	}
	np.Spec.PodSelector.DeepCopyInto(&out.podSelector)
	if out.selects, err = parseSelector(&np.Spec.PodSelector); err != nil {
		out.invalid = true
		out.problem(v1alpha1.ReasonInvalidSelector, "spec.podSelector: %v", err)
		return out
	}
	if ingress {
		b := builder{out: out, direction: policy.Ingress, byKey: map[string]int{}}
		for i, r := range np.Spec.Ingress {
			b.rule(fmt.Sprintf("spec.ingress[%d]", i), "from", int32(i), r.From, r.Ports)
		}
	}
	if egress {
		b := builder{out: out, direction: policy.Egress, byKey: map[string]int{}}
		for i, r := range np.Spec.Egress {
			path := fmt.Sprintf("spec.egress[%d]", i)
			names, isNamed := np.names[i]
			if isNamed {
				b.names(path, int32(i), names, r.Ports)
			}
			if !isNamed || len(r.To) > 0 {
				b.rule(path, "to", int32(i), r.To, r.Ports)
			}
		}
	}
	for d := range out.peers {
		for i := range out.peers[d] {
			out.peers[d][i].ports.canonical()
		}
		out.peers[d] = uniteBlocks(out.peers[d])
	}
	return out
}

// policyTypes returns the directions that a policy isolates. "If no policyTypes are specified, Ingress is set
// by default and Egress if the policy has any egress rules" (the API server writes this default down; a
// policy from elsewhere may come without).
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
			if p.pods == nil { // only pods name ports: here the pods of all namespaces, or those with an address in the block
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

// names adds the domain names of a rule. Those that cannot be read match nothing, and neither does a named port: only pods have these.
func (b *builder) names(path string, index int32, names []string, ports []networkingv1.NetworkPolicyPort) {
	var canonical []v1alpha1.DomainName
	for _, text := range names {
		name, err := policy.CanonicalDomainName(text)
		if err != nil {
			b.out.problem(v1alpha1.ReasonInvalidPeer, "%s.to: domain name %v; it matches nothing", path, err)
			continue
		}
		canonical = append(canonical, v1alpha1.DomainName(name))
	}
	slices.Sort(canonical)
	canonical = slices.Compact(canonical)
	numbers, named := b.ports(path, ports)
	if len(named) > 0 {
		b.out.problem(v1alpha1.ReasonInvalidPort, "%s.ports: a named port matches nothing beside domain names", path)
	}
	if len(ports) > 0 && len(numbers.ranges) == 0 {
		return
	}
	for chunk := range slices.Chunk(canonical, v1alpha1.MaxDomainNamesPerPeer) {
		b.add(peer{names: chunk}, portName{}, index, numbers)
	}
}

// hasNames reports whether a rule has domain names.
func (n *normalized) hasNames() bool {
	return n != nil && slices.ContainsFunc(n.peers[policy.Egress], func(p peerPorts) bool { return len(p.peer.names) > 0 })
}

// ports reads a rule's ports: "if this field is empty or missing, this rule matches all ports". For egress,
// names are separate: their numbers depend on the peers.
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
			if len(b.out.names) < maxNames && !slices.Contains(b.out.names, name) {
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
			b.out.problem(v1alpha1.ReasonInvalidPeer, "%s: a peer with an ipBlock cannot have a selector", path)
			return peer{}, false
		}
		block, err := parseBlock(from.IPBlock)
		if err != nil {
			b.out.problem(v1alpha1.ReasonInvalidPeer, "%s.ipBlock: %v", path, err)
		}
		return peer{block: block}, err == nil
	}
	if from.PodSelector == nil && from.NamespaceSelector == nil {
		b.out.problem(v1alpha1.ReasonInvalidPeer, "%s: a peer needs one of podSelector, namespaceSelector and ipBlock", path)
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
