// Package lint finds likely mistakes in NetworkPolicies and suggests fixes.
package lint

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// Severity of a finding.
type Severity string

// The severities, the highest first.
const (
	Error   Severity = "error"   // it cannot be intended, or is not enforced as it is written
	Warning Severity = "warning" // it is likely a mistake
	Info    Severity = "info"    // worth knowing
)

var severities = []Severity{Error, Warning, Info}

// Finding is one thing to look at.
type Finding struct {
	Severity Severity `json:"severity"`
	// Check is the name of the check that found it.
	Check string `json:"check"`
	// Object is its kind and its name, such as "NetworkPolicy namespace/name" or "ClusterNetworkPolicy name".
	Object string `json:"object"`
	// Path of the field in the object.
	Path string `json:"path,omitempty"`
	// File and Line are where the field is; absent for an object of a cluster, and for one that kustomize generated or downloaded.
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// A check looks at the whole cluster.
type check struct {
	name, about string
	run         func(*linter)
}

// checks in the order in which they are documented.
var checks = []check{
	{"invalid", "a field that the API server rejects, or that cannot be honoured", (*linter).invalid},
	{"ignored-rules", "rules of a direction that policyTypes does not name", (*linter).ignoredRules},
	{"empty-rules", "an empty list of rules that isolates nothing, as policyTypes does not name its direction", (*linter).emptyRules},
	{"selects-nothing", "a policy that selects no pod", (*linter).selectsNothing},
	{"selects-host-network", "a policy that selects pods of the host network, which it does not apply to", (*linter).selectsHostNetwork},
	{"peer-matches-nothing", "a peer that no pod matches", (*linter).peerMatchesNothing},
	{"peer-on-host-network", "a peer whose pods are on the host network, where no selector matches them", (*linter).peerOnHostNetwork},
	{"versioned-label", "a selector on a label that changes with each release or revision", (*linter).versionedLabel},
	{"selectors-or", "namespaceSelector and podSelector in two peers, which mean either and not both", (*linter).selectorsOr},
	{"open-peer", "an empty from or to, or an empty namespaceSelector, which allows every pod", (*linter).openPeer},
	{"named-port", "a named port that no container has", (*linter).namedPort},
	{"port-protocol", "a port without a protocol, which is TCP, where containers serve another", (*linter).portProtocol},
	{"service-port", "a Service's port where the pods listen on another", (*linter).servicePort},
	{"service-address", "an ipBlock of a Service's address, which policies do not see", (*linter).serviceAddress},
	{"block-covers-cluster", "an ipBlock that holds pods or nodes", (*linter).blockCoversCluster},
	{"dns-forgotten", "pods whose egress is isolated and that may not ask DNS", (*linter).dnsForgotten},
	{"shadowed-rule", "a rule that allows nothing which another does not", (*linter).shadowedRule},
	{"no-default-deny", "a namespace with pods that no policy isolates", (*linter).noDefaultDeny},
	{"cluster-unreadable", "a rule of a ClusterNetworkPolicy that cannot be honoured, and fails closed", (*linter).clusterUnreadable},
	{"cluster-shadowed-rule", "a rule of a ClusterNetworkPolicy that never matches, as one before it matches all that it does", (*linter).clusterShadowedRule},
	{"cluster-pass", "a Pass rule that is not an exception to a rule behind it", (*linter).clusterPass},
	{"cluster-equal-priority", "rules with different actions that overlap, of ClusterNetworkPolicies of equal priority", (*linter).clusterPriorities},
	{"cluster-shared-priority", "ClusterNetworkPolicies for the same pods that share a tier and a priority", (*linter).clusterSharedPriority},
	{"cluster-empty-rules", "an empty list of rules of a ClusterNetworkPolicy, which denies nothing", (*linter).clusterEmptyRules},
	{"cluster-named-port", "a named port beside networks, nodes or domain names, which have none", (*linter).clusterNamedPort},
	{"cluster-blocks", "networks with bits of a host, or that are the same after masking", (*linter).clusterBlocks},
	{"cluster-one-family", "a rule for all addresses of one family, where pods have both", (*linter).clusterOneFamily},
	{"cluster-denies-pods", "a Deny rule for networks that also denies connections between pods", (*linter).clusterDenyTakesPods},
	{"cluster-matches-nothing", "a subject or a peer of a ClusterNetworkPolicy that matches no pod", (*linter).clusterPeerMatchesNothing},
	{"cluster-dns-ports", "a rule for DNS that accepts every port", (*linter).clusterDNSAllPorts},
	{"cluster-baseline-open", "a Baseline ingress Deny, which leaves traffic from outside and from nodes open", (*linter).clusterBaselineOutside},
	{"cluster-denies-dns", "a rule of a ClusterNetworkPolicy that denies pods DNS", (*linter).clusterDeniesDNS},
	{"cluster-denies-system", "a rule of a ClusterNetworkPolicy that denies something to kube-system", (*linter).clusterDeniesSystem},
	{"cluster-denies-apiserver", "a rule of a ClusterNetworkPolicy that denies pods the API server", (*linter).clusterDeniesAPIServer},
	{"cluster-denies-webhooks", "a rule of a ClusterNetworkPolicy that keeps the API server from webhooks", (*linter).clusterDeniesWebhooks},
	{"name-invalid", "a domain name that DNS cannot have, or that a rule has twice", (*linter).nameInvalid},
	{"name-public-suffix", "a wildcard below which anyone can have a name", (*linter).namePublicSuffix},
	{"name-of-service", "a name of a Service, which resolves to a cluster IP and never matches", (*linter).nameOfService},
	{"name-useless", "names in a policy that accepts or denies every address on the same ports", (*linter).nameUseless},
	{"name-resolvers", "pods with names in their policies that ask resolvers of their own or of the node", (*linter).nameResolvers},
	{"name-encrypted-dns", "names beside encrypted DNS, whose answers cannot be read", (*linter).nameEncrypted},
	{"name-searched", "a wildcard that covers a search domain of pods", (*linter).nameSearched},
	{"name-nat64", "a Deny of IPv4 networks before names, where pods may reach them by NAT64", (*linter).nameThrough64},
	{"admin-network-policy", "an AdminNetworkPolicy or BaselineAdminNetworkPolicy, which nothing enforces", (*linter).adminNetworkPolicies},
	{"enforcement", "a policy under audit, or with a value of its label kidoban.dev/enforcement that means nothing", (*linter).enforcement},
	{"unknown-check", "an annotation that names a check which does not exist", (*linter).unknownCheck},
}

// has reports whether there is a check of this name.
func has(checks []check, name string) bool {
	return slices.ContainsFunc(checks, func(c check) bool { return c.name == name })
}

type linter struct {
	cluster   *model.Cluster
	evaluator *model.Evaluator
	pods      []pod
	// policies that the API server accepts: of the others only check invalid reports something.
	policies []*networkingv1.NetworkPolicy
	checks   []check // all there are
	check    string  // that runs
	findings []Finding
	ignores  map[string][]string // checks by object, as annotations say
	// matchedBy are the pods that peers of ClusterNetworkPolicies match, by the peers' JSON.
	matchedBy map[string][]*model.Pod
}

// pod is one of those that no policy tells apart, with what is asked of it again and again.
type pod struct {
	*model.Pod
	isPeer    bool
	addresses []netip.Addr
	namespace map[string]string // labels
}

// Options of a run.
type Options struct {
	// Namespaces to report about; none: all.
	Namespaces []string
	// Skip these checks.
	Skip []string
}

// Run the checks, as if audited policies were enforced. suppressed is how many findings the objects' annotations leave out.
func Run(c *model.Cluster, o Options) (findings []Finding, suppressed int) {
	l := &linter{cluster: c, evaluator: model.NewEvaluator(c.EnforceAudited()), checks: checks, findings: []Finding{}}
	for _, p := range c.Distinct() {
		l.pods = append(l.pods, pod{Pod: p, isPeer: policy.IsPeer(&p.Pod), addresses: policy.PodAddresses(&p.Pod), namespace: l.evaluator.Namespace(p.Namespace).Labels})
	}
	for i := range c.Policies {
		if np := &c.Policies[i]; len(model.ValidatePolicy(np)) == 0 {
			l.policies = append(l.policies, np)
		}
	}
	for _, check := range checks {
		if !slices.Contains(o.Skip, check.name) {
			l.check = check.name
			check.run(l)
		}
	}
	slices.SortStableFunc(l.findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(slices.Index(severities, a.Severity), slices.Index(severities, b.Severity)), cmp.Compare(a.Object, b.Object), cmp.Compare(a.Path, b.Path))
	})
	findings = slices.DeleteFunc(slices.Compact(l.findings), func(f Finding) bool {
		return len(o.Namespaces) > 0 && !slices.Contains(o.Namespaces, f.namespace())
	})
	all := len(findings)
	findings = slices.DeleteFunc(findings, l.isSuppressed)
	for i := range findings {
		if at, ok := c.Position(findings[i].Object, findings[i].Path); ok {
			findings[i].File, findings[i].Line = at.File, at.Line
		}
	}
	return findings, all - len(findings)
}

func (l *linter) found(s Severity, object, path, fix, format string, args ...any) {
	l.findings = append(l.findings, Finding{Severity: s, Check: l.check, Object: object, Path: path, Fix: fix, Message: fmt.Sprintf(format, args...)})
}

// namespace of the object, which may be a namespace.
func (f Finding) namespace() string {
	_, name, _ := strings.Cut(f.Object, " ")
	namespace, _, namespaced := strings.Cut(name, "/")
	if !namespaced && !strings.HasPrefix(f.Object, "Namespace ") {
		return "" // of a kind without one, such as ClusterNetworkPolicy
	}
	return namespace
}

func object(np *networkingv1.NetworkPolicy) string {
	if written, ok := application.AsWritten(np); ok {
		return model.Describe(application.Kind, written)
	}
	return model.Describe("NetworkPolicy", np)
}

// eachPolicy yields the policies that the API server accepts.
func (l *linter) eachPolicy(yield func(*networkingv1.NetworkPolicy)) {
	for _, np := range l.policies {
		yield(np)
	}
}

// eachRule yields the rules that count, with their paths.
func (l *linter) eachRule(yield func(np *networkingv1.NetworkPolicy, d policy.Direction, path string, r netpol.Rule)) {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for _, d := range policy.Directions {
			if !netpol.PolicyTypes(np)[d] {
				continue
			}
			for i, r := range netpol.Rules(d, np) {
				yield(np, d, rulePath(d, i), r)
			}
		}
	})
}

func rulePath(d policy.Direction, i int) string {
	return fmt.Sprintf("spec.%s[%d]", [...]string{"ingress", "egress"}[d], i)
}

func peersPath(d policy.Direction, path string) string {
	return path + "." + [...]string{"from", "to"}[d]
}

// selected are the pods that a policy selects and applies to, in any direction.
func (l *linter) selected(np *networkingv1.NetworkPolicy) []*model.Pod {
	return l.podsWhere(func(p *pod) bool { return p.isPeer && selects(np, p) })
}

func selects(np *networkingv1.NetworkPolicy, p *pod) bool {
	return netpol.Selects(policy.Ingress, np, &p.Pod.Pod) || netpol.Selects(policy.Egress, np, &p.Pod.Pod)
}

func (l *linter) podsWhere(is func(*pod) bool) (out []*model.Pod) {
	for i := range l.pods {
		if is(&l.pods[i]) {
			out = append(out, l.pods[i].Pod)
		}
	}
	return out
}

// matched are the pods that a peer matches.
func (l *linter) matched(np *networkingv1.NetworkPolicy, peer *networkingv1.NetworkPolicyPeer) []*model.Pod {
	m := netpol.NewPeerMatcher(np.Namespace, peer)
	return l.podsWhere(func(p *pod) bool {
		return p.isPeer && slices.ContainsFunc(p.addresses, func(a netip.Addr) bool { return m.Matches(a, &p.Pod.Pod, p.namespace) })
	})
}
