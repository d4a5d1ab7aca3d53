package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterUnreadable finds rules that cannot be honoured, and fail closed.
func (l *linter) clusterUnreadable() {
	for i := range l.cluster.ClusterPolicies {
		p := &l.cluster.ClusterPolicies[i]
		for _, d := range policy.Directions {
			for n, r := range model.ClusterRules(d, p) {
				why := r.Unreadable(model.TierOf(p))
				if why == "" {
					continue
				}
				what := "denies everything"
				if r.Action == cnp.ClusterNetworkPolicyRuleActionAccept {
					what = "matches nothing"
				}
				l.found(Error, model.Describe(model.ClusterPolicyKind, p), rulePath(d, n), "Correct the rule, or delete it.", "the rule cannot be honoured, and %s: %s", what, why)
			}
		}
	}
}

// clusterEmptyRules finds empty lists of rules, which deny everything in a NetworkPolicy and nothing here.
func (l *linter) clusterEmptyRules() {
	for i := range l.cluster.ClusterPolicies {
		p := &l.cluster.ClusterPolicies[i]
		for _, d := range policy.Directions {
			if d == policy.Ingress && (p.Spec.Ingress == nil || len(p.Spec.Ingress) > 0) || d == policy.Egress && (p.Spec.Egress == nil || len(p.Spec.Egress) > 0) {
				continue
			}
			field := strings.ToLower(d.String())
			l.found(Info, model.Describe(model.ClusterPolicyKind, p), "spec."+field, "Leave it out, or write a Deny rule.", "%s: [] denies nothing in a ClusterNetworkPolicy", field)
		}
	}
}

// clusterNamedPort finds named ports beside peers that are no pods.
func (l *linter) clusterNamedPort() {
	l.eachClusterRule(func(r *clusterRule) {
		named := slices.ContainsFunc(r.Protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool { return p.DestinationNamedPort != "" })
		i := slices.IndexFunc(r.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
			return len(p.Networks) > 0 || p.Nodes != nil || len(p.DomainNames) > 0
		})
		if named && i >= 0 {
			l.found(Warning, r.object(), fmt.Sprintf("%s[%d]", r.peersPath(), i), "Give the port's number in a rule of its own for this peer.",
				"only pods have named ports: of this peer the rule matches pods alone (the CRD's experimental channel rejects it)")
		}
	})
}

// clusterBlocks finds networks with host bits, and those that are another one of the rule after masking.
func (l *linter) clusterBlocks() {
	l.eachClusterRule(func(r *clusterRule) {
		seen := map[netip.Prefix]string{}
		for i := range r.Peers {
			for n, text := range r.Peers[i].Networks {
				p, err := netip.ParsePrefix(string(text))
				if err != nil {
					continue
				}
				at := fmt.Sprintf("%s[%d].networks[%d]", r.peersPath(), i, n)
				if p != p.Masked() {
					l.found(Warning, r.object(), at, fmt.Sprintf("Write %s, or %s if that address is meant.", p.Masked(), netip.PrefixFrom(p.Addr(), p.Addr().BitLen())),
						"%s has bits of a host: it means %s", text, p.Masked())
				}
				if before, ok := seen[p.Masked()]; ok {
					l.found(Info, r.object(), at, "Delete one of them.", "%s is the same network as %s", text, before)
				}
				seen[p.Masked()] = string(text)
			}
		}
	})
}

// clusterOneFamily finds rules about all addresses of one family only, where the policy's pods have both.
func (l *linter) clusterOneFamily() {
	l.eachClusterRule(func(r *clusterRule) {
		for i := range r.Peers {
			for _, p := range networksOf(r.Peers[i : i+1]) {
				other := netip.PrefixFrom(netip.IPv6Unspecified(), 0)
				if p.Addr().Is6() {
					other = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
				}
				if p.Bits() > 0 || l.hasRuleFor(r, other) {
					continue
				}
				for _, pod := range l.subjects(r.of) {
					if addresses := policy.PodAddresses(&pod.Pod); slices.ContainsFunc(addresses, func(a netip.Addr) bool {
						return a.Is4() != p.Addr().Is4() && !l.cluster.AssumesIPv6(a)
					}) {
						l.found(Warning, r.object(), fmt.Sprintf("%s[%d].networks", r.peersPath(), i), fmt.Sprintf("Add %s.", other),
							"%s covers %s only, and pods such as %s have %s, too", r.Action, familyName(p), pod.Key(), familyName(other))
						break
					}
				}
			}
		}
	})
}

func familyName(p netip.Prefix) string {
	if p.Addr().Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// hasRuleFor reports whether the policy of a rule has one of the same action and direction about a network.
func (l *linter) hasRuleFor(r *clusterRule, network netip.Prefix) bool {
	return slices.ContainsFunc(model.ClusterRules(r.direction, r.of), func(o model.ClusterRule) bool {
		return o.Action == r.Action && slices.Contains(networksOf(o.Peers), network)
	})
}

// clusterDenyTakesPods finds Deny rules for networks that also deny connections between pods.
func (l *linter) clusterDenyTakesPods() {
	l.eachClusterRule(func(r *clusterRule) {
		if !r.isDeny() || len(networksOf(r.Peers)) == 0 {
			return
		}
		subjects, targets := l.subjects(r.of), l.clusterPods(cnp.ClusterNetworkPolicyEgressPeer{Networks: allNetworks(r.Peers)})
		for _, source := range subjects[:min(len(subjects), mostSamples)] {
			for _, target := range targets[:min(len(targets), mostSamples)] {
				if target.Key() == source.Key() {
					continue
				}
				for _, s := range policy.PodAddresses(&source.Pod) {
					for _, to := range policy.PodAddresses(&target.Pod) {
						if s.Is4() == to.Is4() && l.deniedBy(r, policy.Flow{Source: s, Destination: to, Protocol: policy.TCP, Port: 65535}) {
							l.found(Info, r.object(), r.path(), "If only addresses outside the cluster are meant, put a rule before it: {action: Pass, to: [{namespaces: {}}]}.",
								"%s also denies connections between pods, such as from %s to %s: networks include them", r.Action, source.Key(), target.Key())
							return
						}
					}
				}
			}
		}
	})
}

// mostSamples is how many pods on each side are asked about for an example.
const mostSamples = 10

func allNetworks(peers []cnp.ClusterNetworkPolicyEgressPeer) (out []cnp.CIDR) {
	for i := range peers {
		out = append(out, peers[i].Networks...)
	}
	return out
}

// deniedBy reports whether this rule denies a flow.
func (l *linter) deniedBy(r *clusterRule, f policy.Flow) bool {
	rule := model.DenyingRule(l.evaluator.Decide(r.direction, f))
	return rule != nil && rule.Policy.Name == r.of.Name && rule.Index == r.index
}

// clusterPeerMatchesNothing finds peers, and subjects, that match no pod.
func (l *linter) clusterPeerMatchesNothing() {
	if !slices.ContainsFunc(l.pods, func(p pod) bool { return p.isPeer }) {
		return // without pods there is nothing to compare with
	}
	for i := range l.cluster.ClusterPolicies {
		if p := &l.cluster.ClusterPolicies[i]; len(l.subjects(p)) == 0 {
			l.found(Info, model.Describe(model.ClusterPolicyKind, p), "spec.subject", "Correct the labels, or delete the policy.", "selects no pod")
		}
	}
	l.eachClusterRule(func(r *clusterRule) {
		for i, p := range r.Peers {
			if p.Namespaces == nil && p.Pods == nil || len(l.clusterPods(p)) > 0 {
				continue
			}
			at := fmt.Sprintf("%s[%d]", r.peersPath(), i)
			if near := l.nearestDNS(r, &p); near != "" {
				l.found(Warning, r.object(), at, "Write "+near+".", "the rule is for DNS, and selects no pod: the DNS pods have the label %s", near)
				continue
			}
			l.found(Info, r.object(), at, "Correct the labels, or delete the peer.", "matches no pod")
		}
	})
}

// isForDNS reports whether a rule looks as if it were for DNS, by its name, its labels or its port.
func isForDNS(r *clusterRule, p *cnp.ClusterNetworkPolicyEgressPeer) bool {
	if strings.Contains(strings.ToLower(r.Name), "dns") {
		return true
	}
	if p.Pods != nil && strings.Contains(strings.Join(requirements(&p.Pods.PodSelector), " "), "dns") {
		return true
	}
	return slices.ContainsFunc(r.Protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		ports, ok := portRange(&p)
		return ok && ports.First == 53 && ports.Last == 53
	})
}

// nearestDNS is the label of the cluster's DNS pods, for a peer of a rule for DNS.
func (l *linter) nearestDNS(r *clusterRule, p *cnp.ClusterNetworkPolicyEgressPeer) string {
	if r.direction != policy.Egress || !isForDNS(r, p) {
		return ""
	}
	for _, server := range l.dns() {
		pod := l.evaluator.PodAt(server.Addr())
		if pod == nil {
			continue
		}
		for _, key := range []string{"k8s-app", "app.kubernetes.io/name", "dns.operator.openshift.io/daemonset-dns"} {
			if value := pod.Labels[key]; value != "" {
				return key + ": " + value
			}
		}
	}
	return ""
}

// clusterDNSAllPorts finds rules for DNS that accept every port.
func (l *linter) clusterDNSAllPorts() {
	l.eachClusterRule(func(r *clusterRule) {
		if r.direction != policy.Egress || r.Action != cnp.ClusterNetworkPolicyRuleActionAccept || len(r.Protocols) > 0 {
			return
		}
		if slices.ContainsFunc(r.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool { return p.Pods != nil && isForDNS(r, &p) }) {
			l.found(Info, r.object(), r.path(), "Add protocols: [{udp: {destinationPort: {number: 53}}}, {tcp: {destinationPort: {number: 53}}}].", "the rule is for DNS, and accepts all ports of its peers")
		}
	})
}

// clusterBaselineOutside finds Baseline policies that deny ingress from pods: traffic from elsewhere has no peer.
func (l *linter) clusterBaselineOutside() {
	for _, r := range l.clusterRules(policy.TierBaseline, policy.Ingress) {
		if !r.isDeny() || !slices.ContainsFunc(r.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool {
			return p.Namespaces != nil && len(requirements(p.Namespaces)) == 0
		}) {
			continue
		}
		l.found(Warning, r.object(), r.path(), "To deny the rest, isolate the pods by a NetworkPolicy with policyTypes: [Ingress] in each namespace.",
			"traffic from outside the cluster, from nodes and from pods on the host network stays allowed: network-policy-api v0.3.0 has no peer for it in ingress rules")
	}
}

// adminNetworkPolicies finds AdminNetworkPolicies: nothing enforces them.
func (l *linter) adminNetworkPolicies() {
	for _, name := range l.cluster.AdminPolicies {
		l.found(Error, name, "", "Convert it: kubectl kidoban migrate anp convert.", "nothing enforces this kind: ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2) replaced it")
	}
}
