package lint

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// namedRule is a rule that allows by name.
type namedRule struct {
	object, path string
	cluster      *clusterRule                // nil for a rule of an ApplicationNetworkPolicy
	application  *networkingv1.NetworkPolicy // what stands for that policy
	index        int
}

// ruleName is a domain name of a rule, in canonical form.
type ruleName struct {
	rule *namedRule
	path string
	text string // as the policy has it
	name string
}

// eachNamedRule yields the rules with domain names that can be honoured.
func (l *linter) eachNamedRule(yield func(*namedRule)) {
	l.eachClusterRule(func(r *clusterRule) {
		if hasNames(&r.ClusterRule) {
			yield(&namedRule{object: r.object(), path: r.path(), cluster: r, index: r.index})
		}
	})
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for i := range np.Spec.Egress {
			if netpol.PolicyTypes(np)[policy.Egress] && len(application.DomainNames(np, i)) > 0 {
				yield(&namedRule{object: object(np), path: rulePath(policy.Egress, i), application: np, index: i})
			}
		}
	})
}

// eachName yields the domain names of rules that can be honoured, and the error for those that DNS cannot mean.
func (l *linter) eachName(yield func(ruleName, error)) {
	l.eachNamedRule(func(r *namedRule) {
		of := func(text, path string) {
			name, err := policy.CanonicalDomainName(text)
			yield(ruleName{r, path, text, name}, err)
		}
		if r.application != nil {
			for _, text := range application.DomainNames(r.application, r.index) {
				of(text, peersPath(policy.Egress, r.path))
			}
			return
		}
		for i := range r.cluster.Peers {
			for k, text := range r.cluster.Peers[i].DomainNames {
				of(string(text), fmt.Sprintf("%s[%d].domainNames[%d]", r.cluster.peersPath(), i, k))
			}
		}
	})
}

// podsOf are the pods that the policy of a rule selects.
func (l *linter) podsOf(r *namedRule) []*model.Pod {
	if r.application != nil {
		return l.selected(r.application)
	}
	return l.subjects(r.cluster.of)
}

func hasNames(r *model.ClusterRule) bool {
	return slices.ContainsFunc(r.Peers, func(p cnp.ClusterNetworkPolicyEgressPeer) bool { return len(p.DomainNames) > 0 })
}

// eachPolicyWithNames yields each policy that allows by name once, with its first rule that does.
func (l *linter) eachPolicyWithNames(yield func(*namedRule)) {
	seen := map[string]bool{}
	l.eachNamedRule(func(r *namedRule) {
		if !seen[r.object] {
			seen[r.object] = true
			yield(r)
		}
	})
}

// nameInvalid finds names that the API server takes and DNS cannot mean, and names that a rule has twice.
func (l *linter) nameInvalid() {
	seen := map[*namedRule]map[string]bool{}
	l.eachName(func(n ruleName, err error) {
		if err != nil {
			fix := "Correct the name."
			if addr, failed := netip.ParseAddr(strings.TrimSuffix(n.text, ".")); failed == nil {
				fix = n.rule.network(netip.PrefixFrom(addr, addr.BitLen()))
			}
			l.found(Error, n.rule.object, n.path, fix, "%v; it matches nothing", err)
			return
		}
		if seen[n.rule] == nil {
			seen[n.rule] = map[string]bool{}
		}
		if seen[n.rule][n.name] {
			l.found(Info, n.rule.object, n.path, "Delete one of them.", "%s is in the rule twice: case and a trailing dot make no difference", n.name)
		}
		seen[n.rule][n.name] = true
	})
}

// network is how a rule has a network as a peer.
func (r *namedRule) network(n netip.Prefix) string {
	if r.application != nil {
		return fmt.Sprintf("Write ipBlock: {cidr: %q}.", n)
	}
	return fmt.Sprintf("Write networks: [%s].", n)
}

// customerDomains are domains below which a cloud gives names to any customer, beside those in the list of public suffixes.
var customerDomains = []string{"amazonaws.com", "azure.com", "windows.net", "googleapis.com", "googleusercontent.com", "cloudapp.azure.com", "oraclecloud.com"}

// namePublicSuffix finds wildcards below which anyone can have a name.
func (l *linter) namePublicSuffix() {
	l.eachName(func(n ruleName, err error) {
		base, ok := strings.CutPrefix(n.name, "*.")
		if err != nil || !ok {
			return
		}
		suffix, icann := publicsuffix.PublicSuffix(base)
		if suffix == base && (icann || strings.Contains(suffix, ".")) || slices.Contains(customerDomains, base) {
			l.found(Warning, n.rule.object, n.path, "Name the hosts, or the part of the domain that is yours.",
				"%s covers names that anyone can register or rent: the owner of such a name chooses which addresses it allows", n.name)
		}
	})
}

// nameOfService finds names of Services: they resolve to cluster IPs, in place of which policies see a pod's address.
func (l *linter) nameOfService() {
	const fix = "Select the Service's pods."
	l.eachName(func(n ruleName, err error) {
		if err != nil {
			return
		}
		base, isWildcard := strings.CutPrefix(n.name, "*.")
		labels := strings.Split(base, ".")
		i := slices.Index(labels, "svc")
		switch {
		case i < 0 || i > 2 || i+1 < len(labels) && labels[i+1] != "cluster": // svc, svc.cluster.local and what is in front of it
		case isWildcard && i < 2:
			l.found(Warning, n.rule.object, n.path, fix, "%s covers names of Services, which resolve to cluster IPs: policies see the pods' addresses instead, so only names of headless Services match", n.name)
		case !isWildcard && i == 2:
			s := l.service(labels[1], labels[0])
			if s != nil && s.Spec.ClusterIP == corev1.ClusterIPNone {
				return
			}
			l.found(Warning, n.rule.object, n.path, fix, "%s is the name of a Service, which resolves to a cluster IP: policies see a pod's address instead, so the name never matches", n.name)
		}
	})
}

func (l *linter) service(namespace, name string) *corev1.Service {
	i := slices.IndexFunc(l.cluster.Services, func(s corev1.Service) bool { return s.Namespace == namespace && s.Name == name })
	if i < 0 {
		return nil
	}
	return &l.cluster.Services[i]
}

// nameUseless finds rules by name in policies that treat every address alike on the same ports.
func (l *linter) nameUseless() {
	l.applicationNamesUseless()
	everywhere := func(r *model.ClusterRule) bool {
		networks := networksOf(r.Peers)
		return slices.Contains(networks, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	l.eachClusterRule(func(r *clusterRule) {
		if !hasNames(&r.ClusterRule) {
			return
		}
		for i, o := range model.ClusterRules(policy.Egress, r.of) {
			if o.Unreadable(policy.TierAdmin) != "" || !everywhere(&o) || !protocolsCover(o.Protocols, r.Protocols) {
				continue
			}
			other := (&clusterRule{o, r.of, policy.Egress, i}).describe()
			switch {
			case o.Action == cnp.ClusterNetworkPolicyRuleActionAccept:
				l.found(Warning, r.object(), r.path(), "Remove the network, or the names.", "the names limit nothing: %s accepts every IPv4 address on these ports", other)
				return
			case i < r.index && o.Action == cnp.ClusterNetworkPolicyRuleActionDeny:
				l.found(Error, r.object(), r.path(), "Put the rule with the names first.", "the names never match: %s is before it, and denies every IPv4 address on these ports", other)
				return
			}
		}
	})
}

// applicationNamesUseless finds rules by name in ApplicationNetworkPolicies that allow every address on the same ports.
func (l *linter) applicationNamesUseless() {
	l.eachNamedRule(func(r *namedRule) {
		if r.application == nil {
			return
		}
		rules := netpol.Rules(policy.Egress, r.application)
		for i, o := range rules {
			if !isEverywhere(o.Peers) || len(o.Ports) > 0 && (len(rules[r.index].Ports) == 0 || !subset(rules[r.index].Ports, o.Ports)) {
				continue
			}
			l.found(Warning, r.object, r.path, "Remove the block, or the names.", "the names limit nothing: %s allows every IPv4 address on these ports", rulePath(policy.Egress, i))
			return
		}
	})
}

// isEverywhere reports whether peers match every IPv4 address.
func isEverywhere(peers []networkingv1.NetworkPolicyPeer) bool {
	return len(peers) == 0 || slices.ContainsFunc(peers, func(p networkingv1.NetworkPolicyPeer) bool {
		if p.IPBlock == nil || len(p.IPBlock.Except) > 0 {
			return false
		}
		n, err := netip.ParsePrefix(p.IPBlock.CIDR)
		return err == nil && n.Bits() == 0 && n.Addr().Is4()
	})
}

// protocolsCover reports whether a list of protocols matches all that another does.
func protocolsCover(a, b []cnp.ClusterNetworkPolicyProtocol) bool {
	return len(a) == 0 || len(b) > 0 && !slices.ContainsFunc(b, func(p cnp.ClusterNetworkPolicyProtocol) bool {
		return !slices.ContainsFunc(a, func(q cnp.ClusterNetworkPolicyProtocol) bool { return protocolCovers(&q, &p) })
	})
}

// nameResolvers finds pods whose resolvers are not the cluster's: their answers count only if the controller trusts them.
func (l *linter) nameResolvers() {
	l.eachPolicyWithNames(func(r *namedRule) {
		for _, p := range l.podsOf(r) {
			switch p.Spec.DNSPolicy {
			case corev1.DNSDefault:
				l.found(Warning, r.object, r.path, "Give the resolvers of the nodes to the controller: --trusted-resolvers. Or use dnsPolicy ClusterFirst.",
					"pod %s has dnsPolicy Default and asks the resolvers of its node: their answers do not count unless they are trusted", p.Key())
				return
			case corev1.DNSNone:
				for _, s := range ownServers(p) {
					if !l.isDNSAddress(s.Addr()) {
						l.found(Warning, r.object, r.path, fmt.Sprintf("Give the resolver to the controller: --trusted-resolvers=%s. Or let the pod ask the cluster's DNS.", s.Addr()),
							"pod %s asks the resolver %s: its answers do not count unless it is trusted", p.Key(), s.Addr())
						return
					}
				}
			case corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, "":
			}
		}
	})
}

// isDNSAddress reports whether an address is one of the cluster's DNS Services or pods.
func (l *linter) isDNSAddress(addr netip.Addr) bool {
	if slices.ContainsFunc(l.dns(), func(a netip.AddrPort) bool { return a.Addr() == addr }) {
		return true
	}
	return slices.ContainsFunc(l.cluster.Services, func(s corev1.Service) bool {
		return slices.Contains(dnsNamespaces, s.Namespace) && model.HasAddress(&s, addr)
	})
}

// encryptedDNS are names of public resolvers that answer over TLS or HTTPS.
var encryptedDNS = []string{"dns.google", "dns.google.com", "cloudflare-dns.com", "one.one.one.one", "dns.quad9.net", "doh.opendns.com", "dns.adguard-dns.com", "dns.nextdns.io"}

// nameEncrypted finds pods that may ask resolvers whose answers nodes cannot read.
func (l *linter) nameEncrypted() {
	const message = "answers over encrypted DNS cannot be read, so no name is learned from them"
	l.eachName(func(n ruleName, err error) {
		if err != nil {
			return
		}
		if i := slices.IndexFunc(encryptedDNS, func(name string) bool { return policy.CoversName(n.name, name) }); i >= 0 {
			l.found(Info, n.rule.object, n.path, "Leave the name out, and let the pods ask the cluster's DNS.", "%s allows the resolver %s: %s", n.name, encryptedDNS[i], message)
		}
	})
	l.eachPolicyWithNames(func(r *namedRule) {
		for _, i := range r.rulesForTLS() {
			l.found(Info, r.object, rulePath(policy.Egress, i), "Let the pods ask over port 53.", "accepts DNS over TLS: %s", message)
		}
	})
}

// rulesForTLS are the egress rules of the policy that allow DNS over TLS by its port.
func (r *namedRule) rulesForTLS() (out []int) {
	if r.application != nil {
		for i := range r.application.Spec.Egress {
			if slices.ContainsFunc(r.application.Spec.Egress[i].Ports, func(p networkingv1.NetworkPolicyPort) bool {
				return p.Port != nil && p.Port.IntValue() == 853 && p.EndPort == nil
			}) {
				out = append(out, i)
			}
		}
		return out
	}
	for i, o := range model.ClusterRules(policy.Egress, r.cluster.of) {
		if o.Action == cnp.ClusterNetworkPolicyRuleActionAccept && slices.ContainsFunc(o.Protocols, func(p cnp.ClusterNetworkPolicyProtocol) bool {
			ports, ok := portRange(&p)
			return ok && ports.First == 853 && ports.Last == 853
		}) {
			out = append(out, i)
		}
	}
	return out
}

// nameSearched finds wildcards that cover a search domain of pods: names that were meant to be outside resolve below it first.
func (l *linter) nameSearched() {
	l.eachName(func(n ruleName, err error) {
		if err != nil || !strings.HasPrefix(n.name, "*.") {
			return
		}
		for _, p := range l.podsOf(n.rule) {
			if p.Spec.DNSConfig == nil {
				continue
			}
			for _, domain := range p.Spec.DNSConfig.Searches {
				domain = strings.ToLower(strings.TrimSuffix(domain, "."))
				if policy.CoversName(n.name, "name."+domain) {
					l.found(Warning, n.rule.object, n.path, "Name the hosts, or write names with a trailing dot in the application.",
						"%s is a search domain of pod %s: other names resolve below it first, and the rule allows what they resolve to", domain, p.Key())
					return
				}
			}
		}
	})
}

// wellKnown64 is the prefix by which NAT64 reaches IPv4 addresses (RFC 6052).
var wellKnown64 = netip.MustParsePrefix("64:ff9b::/96")

// nameThrough64 finds policies that deny IPv4 networks before they allow by name, where pods have IPv6 addresses, too.
func (l *linter) nameThrough64() {
	l.eachPolicyWithNames(func(named *namedRule) {
		r := named.cluster
		if r == nil || !slices.ContainsFunc(l.subjects(r.of), func(p *model.Pod) bool {
			return slices.ContainsFunc(policy.PodAddresses(&p.Pod), func(a netip.Addr) bool { return a.Is6() && !l.cluster.AssumesIPv6(a) })
		}) {
			return
		}
		for i, o := range model.ClusterRules(policy.Egress, r.of)[:r.index] {
			if o.Action != cnp.ClusterNetworkPolicyRuleActionDeny {
				continue
			}
			networks := networksOf(o.Peers)
			for _, n := range networks {
				if !n.Addr().Is4() || n.Bits() == 0 {
					continue
				}
				addr := wellKnown64.Addr().As16()
				four := n.Addr().As4()
				copy(addr[12:], four[:])
				through := netip.PrefixFrom(netip.AddrFrom16(addr), 96+n.Bits())
				if !within(through, networks) {
					l.found(Info, r.object(), rulePath(policy.Egress, i), fmt.Sprintf("Add %s to the networks, if the nodes have NAT64.", through),
						"denies %s, which is also reached as %s where there is NAT64", n, through)
					return
				}
			}
		}
	})
}
