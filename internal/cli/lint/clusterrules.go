package lint

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterRule is a rule of a ClusterNetworkPolicy, with where it stands.
type clusterRule struct {
	model.ClusterRule
	of        *cnp.ClusterNetworkPolicy
	direction policy.Direction
	index     int
}

func (r *clusterRule) object() string    { return model.Describe(model.ClusterPolicyKind, r.of) }
func (r *clusterRule) path() string      { return rulePath(r.direction, r.index) }
func (r *clusterRule) peersPath() string { return peersPath(r.direction, r.path()) }

// describe is "rule NAME" or the path, in its policy.
func (r *clusterRule) describe() string {
	if r.Name == "" {
		return r.path() + " of " + r.object()
	}
	return fmt.Sprintf("rule %s (%s) of %s", r.Name, r.path(), r.object())
}

func (r *clusterRule) isDeny() bool { return r.Action == cnp.ClusterNetworkPolicyRuleActionDeny }

// clusterRules returns the rules of one tier and direction in the order of evaluation, without those that cannot be honoured.
func (l *linter) clusterRules(tier policy.Tier, d policy.Direction) (out []*clusterRule) {
	for _, p := range model.InOrder(l.cluster.ClusterPolicies) {
		if model.TierOf(p) != tier {
			continue
		}
		for i, r := range model.ClusterRules(d, p) {
			if r.Unreadable(tier) == "" {
				out = append(out, &clusterRule{r, p, d, i})
			}
		}
	}
	return out
}

// eachClusterRule yields the rules of all ClusterNetworkPolicies that can be honoured.
func (l *linter) eachClusterRule(yield func(*clusterRule)) {
	for _, tier := range [...]policy.Tier{policy.TierAdmin, policy.TierBaseline} {
		for _, d := range policy.Directions {
			for _, r := range l.clusterRules(tier, d) {
				yield(r)
			}
		}
	}
}

// subjectPeer is a policy's subject as a peer of its pods.
func subjectPeer(p *cnp.ClusterNetworkPolicy) cnp.ClusterNetworkPolicyEgressPeer {
	return cnp.ClusterNetworkPolicyEgressPeer{Namespaces: p.Spec.Subject.Namespaces, Pods: p.Spec.Subject.Pods}
}

// subjects are the pods that a policy selects.
func (l *linter) subjects(p *cnp.ClusterNetworkPolicy) []*model.Pod {
	return l.clusterPods(subjectPeer(p))
}

// clusterPods are the pods that a peer matches. Many rules have the same peers, so the answers are kept.
func (l *linter) clusterPods(peer cnp.ClusterNetworkPolicyEgressPeer) []*model.Pod {
	text, _ := json.Marshal(peer)
	if known, ok := l.matchedBy[string(text)]; ok {
		return known
	}
	m := model.ClusterPeer(&peer, l.cluster)
	out := l.podsWhere(func(p *pod) bool {
		return p.isPeer && (m.Matches(netip.Addr{}, &p.Pod.Pod, p.namespace) || !p.Invented && slices.ContainsFunc(p.addresses, func(a netip.Addr) bool { return m.Matches(a, &p.Pod.Pod, p.namespace) }))
	})
	if l.matchedBy == nil {
		l.matchedBy = map[string][]*model.Pod{}
	}
	l.matchedBy[string(text)] = out
	return out
}

// requirements of a selector, as texts. A selector that has all those of another selects no more than it.
func requirements(s *metav1.LabelSelector) (out []string) {
	for k, v := range s.MatchLabels {
		out = append(out, fmt.Sprintf("%s In [%s]", k, v))
	}
	for _, e := range s.MatchExpressions {
		values := slices.Sorted(slices.Values(e.Values))
		out = append(out, fmt.Sprintf("%s %s %v", e.Key, e.Operator, values))
	}
	return out
}

// selectorCovers reports whether a selects all that b does, by their texts.
func selectorCovers(a, b *metav1.LabelSelector) bool {
	of := requirements(b)
	return !slices.ContainsFunc(requirements(a), func(r string) bool { return !slices.Contains(of, r) })
}

// peerCovers reports whether a matches all that b does, by their texts.
func peerCovers(a, b *cnp.ClusterNetworkPolicyEgressPeer) bool {
	switch {
	case a.Namespaces != nil && b.Namespaces != nil:
		return selectorCovers(a.Namespaces, b.Namespaces)
	case a.Namespaces != nil && b.Pods != nil:
		return selectorCovers(a.Namespaces, &b.Pods.NamespaceSelector)
	case a.Pods != nil && b.Pods != nil:
		return selectorCovers(&a.Pods.NamespaceSelector, &b.Pods.NamespaceSelector) && selectorCovers(&a.Pods.PodSelector, &b.Pods.PodSelector)
	case a.Pods != nil && b.Namespaces != nil:
		return len(requirements(&a.Pods.PodSelector)) == 0 && selectorCovers(&a.Pods.NamespaceSelector, b.Namespaces)
	case a.Nodes != nil && b.Nodes != nil:
		return selectorCovers(a.Nodes, b.Nodes)
	}
	return false
}

// networksOf a list of peers.
func networksOf(peers []cnp.ClusterNetworkPolicyEgressPeer) (out []netip.Prefix) {
	for i := range peers {
		for _, n := range peers[i].Networks {
			if p, err := netip.ParsePrefix(string(n)); err == nil {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

func within(p netip.Prefix, blocks []netip.Prefix) bool {
	return slices.ContainsFunc(blocks, func(b netip.Prefix) bool { return b.Bits() <= p.Bits() && b.Contains(p.Addr()) })
}

// ruleCovers reports whether each flow of b, whose policy's pods are among those of a's, matches a.
func ruleCovers(a, b *clusterRule) bool {
	of, other := subjectPeer(a.of), subjectPeer(b.of)
	if a.of != b.of && !peerCovers(&of, &other) {
		return false
	}
	blocks := networksOf(a.Peers)
	for i := range b.Peers {
		peer := &b.Peers[i]
		covered := slices.ContainsFunc(a.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool { return peerCovers(&p, peer) })
		if len(peer.Networks) > 0 {
			covered = !slices.ContainsFunc(networksOf(b.Peers[i:i+1]), func(n netip.Prefix) bool { return !within(n, blocks) })
		}
		if len(peer.DomainNames) > 0 {
			covered = !slices.ContainsFunc(peer.DomainNames, func(n cnp.DomainName) bool {
				return !slices.ContainsFunc(a.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
					return slices.ContainsFunc(p.DomainNames, func(m cnp.DomainName) bool { return nameCovers(string(m), string(n)) })
				})
			})
		}
		if !covered {
			return false
		}
	}
	return protocolsCover(a.Protocols, b.Protocols)
}

func nameCovers(a, b string) bool {
	a, b = strings.ToLower(strings.TrimSuffix(a, ".")), strings.ToLower(strings.TrimSuffix(b, "."))
	suffix, ok := strings.CutPrefix(a, "*")
	return a == b || ok && strings.HasSuffix(strings.TrimPrefix(b, "*"), suffix)
}

// portRange of a rule's protocol; false for a named port.
func portRange(p *cnp.ClusterNetworkPolicyProtocol) (policy.PortRange, bool) {
	protocol, port := model.ProtocolAndPort(p)
	switch {
	case protocol == 0:
		return policy.PortRange{}, false
	case port == nil:
		return policy.PortRange{Protocol: protocol, First: 1, Last: 65535}, true
	case port.Range != nil:
		return policy.PortRange{Protocol: protocol, First: uint16(port.Range.Start), Last: uint16(port.Range.End)}, true
	}
	return policy.PortRange{Protocol: protocol, First: uint16(port.Number), Last: uint16(port.Number)}, true
}

func protocolCovers(a, b *cnp.ClusterNetworkPolicyProtocol) bool {
	r, ok := portRange(a)
	q, too := portRange(b)
	if !ok || !too {
		return !ok && !too && a.DestinationNamedPort == b.DestinationNamedPort
	}
	return r.Protocol == q.Protocol && r.First <= q.First && q.Last <= r.Last
}

// rulesMeet reports whether two rules of one direction may match the same flow of the same pod: pods as far as they are known, and otherwise
// by their texts.
func (l *linter) rulesMeet(a, b *clusterRule) bool {
	return l.podsMeet(subjectPeer(a.of), subjectPeer(b.of)) && l.peersMeet(a, b) && protocolsMeet(a.Protocols, b.Protocols)
}

func (l *linter) podsMeet(a, b cnp.ClusterNetworkPolicyEgressPeer) bool {
	if peerCovers(&a, &b) || peerCovers(&b, &a) {
		return true
	}
	of, other := l.clusterPods(a), l.clusterPods(b) // both in the order of l.pods
	at := 0
	for i := range l.pods {
		p := l.pods[i].Pod
		in := len(of) > 0 && of[0] == p
		if in {
			of = of[1:]
		}
		if at < len(other) && other[at] == p {
			if at++; in {
				return true
			}
		}
		if len(of) == 0 || at == len(other) {
			break
		}
	}
	return false
}

func (l *linter) peersMeet(a, b *clusterRule) bool {
	for _, p := range a.Peers {
		for _, q := range b.Peers {
			for _, m := range networksOf([]cnp.ClusterNetworkPolicyEgressPeer{p}) {
				if slices.ContainsFunc(networksOf([]cnp.ClusterNetworkPolicyEgressPeer{q}), m.Overlaps) {
					return true
				}
			}
			if len(p.DomainNames) == 0 && len(q.DomainNames) == 0 && l.podsMeet(p, q) {
				return true
			}
		}
	}
	return false
}

func protocolsMeet(a, b []cnp.ClusterNetworkPolicyProtocol) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		return slices.ContainsFunc(b, func(q cnp.ClusterNetworkPolicyProtocol) bool {
			r, ok := portRange(&p)
			s, too := portRange(&q)
			return !ok || !too || r.Protocol == s.Protocol && r.First <= s.Last && s.First <= r.Last
		})
	})
}

// clusterShadowedRule finds rules that never match, because one before them matches all that they do.
func (l *linter) clusterShadowedRule() {
	for _, tier := range [...]policy.Tier{policy.TierAdmin, policy.TierBaseline} {
		for _, d := range policy.Directions {
			rules := l.clusterRules(tier, d)
			for i, b := range rules {
				k := slices.IndexFunc(rules[:i], func(a *clusterRule) bool { return ruleCovers(a, b) })
				if k < 0 {
					continue
				}
				a := rules[k]
				l.found(Warning, b.object(), b.path(), "Delete it, or put it before the other.", "never matches: %s comes first, matches all that this rule does, and decides %s", a.describe(), a.Action)
			}
		}
	}
}

// clusterPass finds Pass rules with no rule behind them in their tier that they could keep from deciding.
func (l *linter) clusterPass() {
	for _, tier := range [...]policy.Tier{policy.TierAdmin, policy.TierBaseline} {
		for _, d := range policy.Directions {
			rules := l.clusterRules(tier, d)
			for i, r := range rules {
				if r.Action != cnp.ClusterNetworkPolicyRuleActionPass || slices.ContainsFunc(rules[i+1:], func(o *clusterRule) bool { return l.rulesMeet(r, o) }) {
					continue
				}
				l.found(Info, r.object(), r.path(), "Delete it, or put the rule that it is an exception of behind it.",
					"Pass changes nothing: no rule of the %s tier behind it is about these connections", tier)
			}
		}
	}
}

// clusterPriorities finds policies of one tier and priority: with rules that contradict each other, and those of which only the names decide
// the order.
func (l *linter) clusterPriorities() { l.samePriority(true) }

func (l *linter) clusterSharedPriority() { l.samePriority(false) }

func (l *linter) samePriority(contradicting bool) {
	policies := model.InOrder(l.cluster.ClusterPolicies)
	for i, p := range policies {
		for _, q := range policies[:i] {
			if p.Spec.Tier != q.Spec.Tier || p.Spec.Priority != q.Spec.Priority || !l.podsMeet(subjectPeer(p), subjectPeer(q)) {
				continue
			}
			a, b := l.contradiction(q, p)
			const fix = "Give the policy that should decide first a lower priority than the other."
			switch {
			case contradicting && a != nil:
				l.found(Warning, b.object(), b.path(), fix, "%s has the same tier and priority, %d, and decides %s for some of the connections that this rule decides %s for: the policies' names decide the order, which other engines need not do",
					a.describe(), p.Spec.Priority, a.Action, b.Action)
			case !contradicting && a == nil:
				l.found(Info, model.Describe(model.ClusterPolicyKind, p), "spec.priority", fix, "%s has the same tier and priority, %d, and selects some of the same pods",
					model.Describe(model.ClusterPolicyKind, q), p.Spec.Priority)
			}
		}
	}
}

// contradiction are rules of two policies with different actions that may match the same connection; nil if there are none.
func (l *linter) contradiction(p, q *cnp.ClusterNetworkPolicy) (a, b *clusterRule) {
	for _, d := range policy.Directions {
		rules := l.clusterRules(model.TierOf(p), d)
		for _, a := range rules {
			for _, b := range rules {
				if a.of == p && b.of == q && a.Action != b.Action && l.rulesMeet(a, b) {
					return a, b
				}
			}
		}
	}
	return nil, nil
}
