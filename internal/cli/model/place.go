package model

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// A place is an address, and stands for all that no policy tells apart from it: of pods in one namespace with equal ports and equal
// labels, as far as selectors look at them, and in the same ipBlocks.
type place struct {
	index int
	addr  netip.Addr
	// pod is one of those, or nil, and namespace its namespace's labels.
	pod       *corev1.Pod
	namespace map[string]string
	// name of a host outside the cluster, whose address the node has learned.
	name string
	// parts that the address may be in, where it is not known.
	parts *possibleParts
	// assumed: the pod is taken to have this address for what is outside only.
	assumed bool
	// isolated, by direction: whether NetworkPolicies select the pod.
	isolated [2]bool
	// rules, by direction and tier, of all policies that select the pod, in the order of evaluation.
	rules [2][3][]*rule
}

// possibleParts are what policies can tell apart of the addresses that pods of a family may have. All places of a Reach share them.
type possibleParts struct{ list []Part }

// bitsOf a block: those of the parts that are in it.
func (p *possibleParts) bitsOf(m matcher) bits {
	words := make([]uint64, (len(p.list)+63)/64)
	for i, part := range p.list {
		if m.Matches(part.First, nil, nil) {
			words[i/64] |= 1 << (i % 64)
		}
	}
	return newBits(words, len(p.list))
}

// rule is a policy's rule, of either kind, with what is known of it.
type rule struct {
	decision
	// peers; none: everyone. Those of blocks look at addresses.
	peers, blocks []matcher
	names         []string                                 // of an ApplicationNetworkPolicy, in canonical form
	matchPort     func(to *corev1.Pod, f policy.Flow) bool // nil: every port
	matches       []match                                  // by place
	parts         map[*possibleParts]bits
	named         bool               // a port has a name, which every place gives a number of its own
	numbered      []policy.PortRange // the other ports
	ports         map[portAt]bool
}

// decision is what a rule does, and which one it is.
type decision struct {
	action policy.Action
	// cluster, or the NetworkPolicy and the rule's index in it.
	cluster *reference.ClusterRule
	policy  *networkingv1.NetworkPolicy
	index   int
}

// matcher is a peer of a rule.
type matcher interface {
	Matches(addr netip.Addr, pod *corev1.Pod, namespaceLabels map[string]string) bool
}

// portAt is a port, and where the place matters its index.
type portAt struct {
	Port
	place int
}

// newRule of a NetworkPolicy.
func newRule(np *networkingv1.NetworkPolicy, index int, r netpol.Rule, places int) *rule {
	out := &rule{decision: decision{action: policy.Allow, policy: np, index: index}}
	out.remember(places)
	for i := range r.Peers {
		m := netpol.NewPeerMatcher(np.Namespace, &r.Peers[i])
		if out.peers = append(out.peers, m); r.Peers[i].IPBlock != nil {
			out.blocks = append(out.blocks, m)
		}
	}
	out.names = canonicalNames(application.DomainNames(np, index))
	if len(r.Ports) > 0 {
		out.matchPort = func(to *corev1.Pod, f policy.Flow) bool { return netpol.MatchesPorts(r.Ports, to, f) }
	}
	for i := range r.Ports {
		port := &r.Ports[i]
		switch {
		case port.Port == nil:
		case port.Port.StrVal != "":
			out.named = true
		default:
			numbered := policy.PortRange{Protocol: policy.ProtocolOf(port.Protocol), First: uint16(port.Port.IntVal), Last: uint16(port.Port.IntVal)}
			if port.EndPort != nil {
				numbered.Last = uint16(*port.EndPort)
			}
			out.numbered = append(out.numbered, numbered)
		}
	}
	return out
}

func (r *rule) remember(places int) {
	r.matches, r.parts, r.ports = make([]match, places), map[*possibleParts]bits{}, map[portAt]bool{}
}

type match uint8

const (
	unasked match = iota
	yes
	no
)

// matchesPeer are the parts of a place that a peer of the rule holds.
func (r *rule) matchesPeer(p *place) bits {
	if len(r.peers) == 0 {
		return bits{all: true}
	}
	if n := p.index + 1 - len(r.matches); n > 0 { // places outside are added as they are asked for
		r.matches = append(r.matches, make([]match, n)...)
	}
	if r.matches[p.index] == unasked {
		r.matches[p.index] = no
		if slices.ContainsFunc(r.peers, func(m matcher) bool {
			return m.Matches(p.known(), p.pod, p.namespace) || p.name != "" && (coversName(m, p.name) || coversAny(r.names, p.name))
		}) {
			r.matches[p.index] = yes
		}
	}
	if r.matches[p.index] == yes {
		return bits{all: true}
	}
	if p.parts == nil {
		return bits{}
	}
	out, ok := r.parts[p.parts]
	if !ok {
		for _, m := range r.blocks {
			out = out.or(p.parts.bitsOf(m), len(p.parts.list))
		}
		r.parts[p.parts] = out
	}
	return out
}

func coversName(m matcher, name string) bool {
	c, ok := m.(*clusterPeer)
	return ok && c.coversName(name)
}

// known is the address, or none.
func (p *place) known() netip.Addr {
	if p.parts != nil {
		return netip.Addr{}
	}
	return p.addr
}

func (r *rule) matchesPort(to *place, port Port) bool {
	if r.matchPort == nil {
		return true
	}
	at := portAt{Port: port}
	if r.named {
		at.place = to.index
	}
	matches, ok := r.ports[at]
	if !ok {
		matches = r.matchPort(to.pod, policy.Flow{Destination: to.addr, Protocol: port.Protocol, Port: port.Number})
		r.ports[at] = matches
	}
	return matches
}

// accepts judges one direction of a flow between p, which the direction is seen from, and peer: the parts of the peer's possible addresses
// for which the flow is allowed. Each tier decides about the parts that the tiers before it leave.
func (p *place) accepts(d policy.Direction, peer *place, port Port) bits {
	n := 0
	if peer.parts != nil {
		n = len(peer.parts.list)
	}
	out, rest := p.tier(policy.TierAdmin, d, peer, port, bits{all: true}, n)
	if p.isolated[d] {
		allowed, _ := p.tier(policy.TierNetworkPolicy, d, peer, port, rest, n)
		return out.or(allowed, n)
	}
	allowed, left := p.tier(policy.TierBaseline, d, peer, port, rest, n)
	return out.or(allowed, n).or(left, n)
}

// tier judges the parts of rest by the rules of one tier, the first that matches: those that it allows, and those that it leaves to the next.
func (p *place) tier(tier policy.Tier, d policy.Direction, peer *place, port Port, rest bits, n int) (allowed, left bits) {
	to := p
	if d == policy.Egress {
		to = peer
	}
	for _, r := range p.rules[d][tier] {
		if rest.none() {
			break
		}
		in := r.matchesPeer(peer).and(rest, n)
		if in.none() || !r.matchesPort(to, port) {
			continue
		}
		rest = rest.minus(in, n)
		switch r.action {
		case policy.Allow:
			allowed = allowed.or(in, n)
		case policy.Pass:
			left = left.or(in, n)
		case policy.Deny:
		}
	}
	return allowed, left.or(rest, n)
}

// denies reports whether a ClusterNetworkPolicy has a rule that denies something here.
func (p *place) denies(d policy.Direction) bool {
	isDeny := func(r *rule) bool { return r.action == policy.Deny }
	return slices.ContainsFunc(p.rules[d][policy.TierAdmin], isDeny) || slices.ContainsFunc(p.rules[d][policy.TierBaseline], isDeny)
}

// first returns the first rule of a tier that matches a flow at the i-th part of the peer's possible addresses, or nil.
func (p *place) first(tier policy.Tier, d policy.Direction, peer *place, i int, port Port) *rule {
	to := p
	if d == policy.Egress {
		to = peer
	}
	for _, r := range p.rules[d][tier] {
		if r.matchesPeer(peer).has(i) && r.matchesPort(to, port) {
			return r
		}
	}
	return nil
}

// looks is what policies can tell addresses apart by.
type looks struct {
	labels []string
	blocks []matcher
}

func newLooks(c *Cluster) *looks {
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
	for i := range c.Policies {
		selector(&c.Policies[i].Spec.PodSelector)
		for _, d := range policy.Directions {
			for _, r := range netpol.Rules(d, &c.Policies[i]) {
				for _, peer := range r.Peers {
					selector(peer.PodSelector)
					if b := peer.IPBlock; b != nil && !blocks[fmt.Sprint(*b)] {
						blocks[fmt.Sprint(*b)] = true
						l.blocks = append(l.blocks, netpol.NewPeerMatcher("", &peer))
					}
				}
			}
		}
	}
	for i := range c.ClusterPolicies {
		p := &c.ClusterPolicies[i]
		if p.Spec.Subject.Pods != nil {
			selector(&p.Spec.Subject.Pods.PodSelector)
		}
		for _, d := range policy.Directions {
			for _, r := range ClusterRules(d, p) {
				for _, peer := range r.Peers {
					if peer.Pods != nil {
						selector(&peer.Pods.PodSelector)
					}
					if m := newClusterPeer(&peer, c); m.hasBlocks() && !blocks[m.String()] {
						blocks[m.String()] = true
						l.blocks = append(l.blocks, m)
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
