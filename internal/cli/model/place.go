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
	// isolated and rules, by direction: whether policies select the pod, and all their rules.
	isolated [2]bool
	rules    [2][]*rule
}

// rule is a policy's rule with what is known of it.
type rule struct {
	policy.ClusterRule
	peers   []*policy.PeerMatcher
	matches []match // by place
	named   bool    // a port has a name, which every place gives a number of its own
	ports   map[portAt]bool
}

// portAt is a port, and where the place matters its index.
type portAt struct {
	Port
	place int
}

func newRule(namespace string, r policy.ClusterRule, places int) *rule {
	out := &rule{ClusterRule: r, matches: make([]match, places), ports: map[portAt]bool{}}
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

func (r *rule) matchesPeer(p *place) bool {
	if len(r.Peers) == 0 {
		return true
	}
	if r.matches[p.index] == unasked {
		r.matches[p.index] = no
		if slices.ContainsFunc(r.peers, func(m *policy.PeerMatcher) bool { return m.Matches(p.addr, p.pod, p.namespace) }) {
			r.matches[p.index] = yes
		}
	}
	return r.matches[p.index] == yes
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

// accepts judges one direction of a flow between p, which the direction is seen from, and peer.
func (p *place) accepts(d policy.Direction, peer *place, port Port) bool {
	if !p.isolated[d] {
		return true
	}
	to := p
	if d == policy.Egress {
		to = peer
	}
	for _, r := range p.rules[d] {
		if r.matchesPeer(peer) && r.matchesPort(to, port) {
			return true
		}
	}
	return false
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
			for _, r := range policy.ClusterRules(d, &policies[i]) {
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
