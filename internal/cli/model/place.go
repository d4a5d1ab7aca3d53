package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// A place is an address, and stands for all that no policy tells apart from it: of pods in one namespace with equal ports and equal
// labels, as far as selectors look at them, and in the same ipBlocks.
type place struct {
	index int
	addr  netip.Addr
	// pod is one of those, or nil, and namespace its namespace's labels.
	pod       *corev1.Pod
	namespace map[string]string
	// parts that the address may be in, where it is not known.
	parts *possibleParts
	// assumed: the pod is taken to have this address for what is outside only.
	assumed bool
	// isolated and rules, by direction: whether policies select the pod, and all their rules.
	isolated [2]bool
	rules    [2][]*rule
}

// possibleParts are what policies can tell apart of the addresses that pods of a family may have. All places of a Reach share them.
type possibleParts struct{ list []Part }

// bitsOf a block: those of the parts that are in it.
func (p *possibleParts) bitsOf(m *policy.PeerMatcher) bits {
	words := make([]uint64, (len(p.list)+63)/64)
	for i, part := range p.list {
		if m.Matches(part.First, nil, nil) {
			words[i/64] |= 1 << (i % 64)
		}
	}
	return newBits(words, len(p.list))
}

// rule is a policy's rule with what is known of it.
type rule struct {
	policy.NetworkPolicyRule
	peers   []*policy.PeerMatcher
	matches []match // by place
	blocks  map[*possibleParts]bits
	named   bool // a port has a name, which every place gives a number of its own
	ports   map[portAt]bool
}

// portAt is a port, and where the place matters its index.
type portAt struct {
	Port
	place int
}

func newRule(namespace string, r policy.NetworkPolicyRule, places int) *rule {
	out := &rule{NetworkPolicyRule: r, matches: make([]match, places), blocks: map[*possibleParts]bits{}, ports: map[portAt]bool{}}
	for i := range r.Peers {
		out.peers = append(out.peers, policy.NewPeerMatcher(namespace, &r.Peers[i]))
	}
	out.named = slices.ContainsFunc(r.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port != nil && p.Port.StrVal != "" })
	return out
}

type match uint8

const (
	unasked match = iota
	yes
	no
)

// matchesPeer are the parts of a place that a peer of the rule holds.
func (r *rule) matchesPeer(p *place) bits {
	if len(r.Peers) == 0 {
		return bits{all: true}
	}
	if n := p.index + 1 - len(r.matches); n > 0 { // places outside are added as they are asked for
		r.matches = append(r.matches, make([]match, n)...)
	}
	if r.matches[p.index] == unasked {
		r.matches[p.index] = no
		if slices.ContainsFunc(r.peers, func(m *policy.PeerMatcher) bool { return m.Matches(p.known(), p.pod, p.namespace) }) {
			r.matches[p.index] = yes
		}
	}
	if r.matches[p.index] == yes {
		return bits{all: true}
	}
	if p.parts == nil {
		return bits{}
	}
	out, ok := r.blocks[p.parts]
	if !ok {
		for i := range r.Peers {
			if r.Peers[i].IPBlock != nil {
				out = out.or(p.parts.bitsOf(r.peers[i]), len(p.parts.list))
			}
		}
		r.blocks[p.parts] = out
	}
	return out
}

// known is the address, or none.
func (p *place) known() netip.Addr {
	if p.parts != nil {
		return netip.Addr{}
	}
	return p.addr
}

func (r *rule) matchesPort(to *place, port Port) bool {
	if len(r.Ports) == 0 {
		return true
	}
	at := portAt{Port: port}
	if r.named {
		at.place = to.index
	}
	matches, ok := r.ports[at]
	if !ok {
		matches = policy.MatchesPorts(r.Ports, to.pod, policy.Flow{Destination: to.addr, Protocol: port.Protocol, Port: port.Number})
		r.ports[at] = matches
	}
	return matches
}

// accepts judges one direction of a flow between p, which the direction is seen from, and peer: the parts of the peer's possible addresses
// for which the flow is allowed.
func (p *place) accepts(d policy.Direction, peer *place, port Port) bits {
	if !p.isolated[d] {
		return bits{all: true}
	}
	to := p
	if d == policy.Egress {
		to = peer
	}
	var out bits
	for _, r := range p.rules[d] {
		in := r.matchesPeer(peer)
		if in.none() || !r.matchesPort(to, port) {
			continue
		}
		if in.all {
			return in
		}
		if out = out.or(in, len(peer.parts.list)); out.all {
			return out
		}
	}
	return out
}

// looks is what policies can tell addresses apart by.
type looks struct {
	labels []string
	blocks []*policy.PeerMatcher
}

func newLooks(policies []networkingv1.NetworkPolicy) *looks {
	l := &looks{}
	labels, blocks := map[string]bool{}, map[string]bool{}
	selector := func(s *metav1.LabelSelector) {
		if s == nil {
			return
		}
		for key := range s.MatchLabels {
			labels[key] = true
		}
		for _, e := range s.MatchExpressions {
			labels[e.Key] = true
		}
	}
	for i := range policies {
		selector(&policies[i].Spec.PodSelector)
		for _, d := range policy.Directions {
			for _, r := range policy.NetworkPolicyRules(d, &policies[i]) {
				for _, peer := range r.Peers {
					selector(peer.PodSelector)
					if b := peer.IPBlock; b != nil && !blocks[fmt.Sprint(*b)] {
						blocks[fmt.Sprint(*b)] = true
						l.blocks = append(l.blocks, policy.NewPeerMatcher("", &peer))
					}
				}
			}
		}
	}
	for key := range labels {
		l.labels = append(l.labels, key)
	}
	slices.Sort(l.labels)
	return l
}

// of is equal for two addresses that policies cannot tell apart.
func (l *looks) of(addr netip.Addr, pod *corev1.Pod) string {
	var b strings.Builder
	if pod != nil {
		b.WriteString(pod.Namespace)
		for _, key := range l.labels {
			if value, ok := pod.Labels[key]; ok {
				b.WriteByte(1)
				b.WriteString(value)
			}
			b.WriteByte(0)
		}
		for _, n := range policy.ContainerPorts(pod) {
			fmt.Fprintf(&b, "%s %d %d;", n.Name, n.Protocol, n.Port)
		}
	}
	b.WriteByte(0)
	for i := range l.blocks {
		if l.blocks[i].Matches(addr, nil, nil) {
			fmt.Fprintf(&b, "%d ", i)
		}
	}
	return b.String()
}
