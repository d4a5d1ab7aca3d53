package resolver

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// policyKind is the kind of most policies.
const policyKind = "NetworkPolicy"

// groupRef is a group that a policy uses.
type groupRef struct {
	key  policy.GroupKey
	set  *podSet
	port *policy.NamedPort
}

// rendered is a policy in the form of the API. spec is nil if the policy does not fit: then only isolating can be
// in force, which has no rules. A group that both directions use is in groups twice.
type rendered struct {
	spec      *v1alpha1.PolicyEndpointSpec
	isolating *v1alpha1.PolicyEndpointSpec
	groups    []groupRef
	problems  []Problem
	// collisions counts groups that are left out because their name belongs to another group.
	collisions int
}

// renderer contains the facts about the cluster that rendering needs.
type renderer struct {
	// namespace is the policy's; shared is the namespace of groups that cross namespaces.
	namespace, shared string
	// numbers returns the numbers that the pods of a set give to a name.
	numbers func(*podSet, portName) portNumbers
	// collides reports whether the name of a group belongs to another group. nil: none does.
	collides func(groupRef) bool

	mostNumbers int // of one name among the peers of a rule
}

// render renders a policy. Numbers of port names are chosen by other tenants, so they never make a policy too large:
// as many are left out as do not fit.
func (r *renderer) render(np *Source, n *normalized) rendered {
	isolating := isolatingSpec(np, n)
	if n.invalid {
		return rendered{isolating: isolating, problems: slices.Clone(n.problems)}
	}
	var out rendered
	for _, r.mostNumbers = range numbersOfName {
		out = rendered{isolating: isolating, problems: slices.Clone(n.problems)}
		spec := *isolating
		for _, name := range n.names {
			if len(r.numbers(&podSet{pods: n.selects}, name).kept) == 0 {
				out.problem(v1alpha1.ReasonUnresolvedNamedPort, "spec.ingress: no pod that the policy selects has a %s", name)
			}
		}
		spec.Ingress = rules(r.peers(n.peers[policy.Ingress], &out))
		spec.Egress = rules(r.peers(n.peers[policy.Egress], &out))
		field := outOfBounds(&spec)
		if field == "" {
			out.spec = &spec
			break
		}
		out.problem(v1alpha1.ReasonTooLarge, "%s; split the policy in two", field)
		if !slices.ContainsFunc(n.peers[policy.Egress], func(p peerPorts) bool { return p.name != portName{} }) {
			break // no number to leave out
		}
	}
	out.problems = sortProblems(out.problems)
	return out
}

// isolatingSpec returns a policy without its rules. A policy whose podSelector cannot be read may select any pod, so it
// isolates all of its namespace's.
func isolatingSpec(np *Source, n *normalized) *v1alpha1.PolicyEndpointSpec {
	spec := &v1alpha1.PolicyEndpointSpec{
		PolicyRef:   v1alpha1.PolicyReference{Kind: np.kind, Name: np.Name, UID: np.UID, Generation: np.Generation},
		Enforcement: n.enforcement,
		PolicyTypes: n.types,
	}
	if !n.invalid {
		spec.PodSelector = n.podSelector
	}
	return spec
}

// enforcementOf reads the label of a policy. One that means nothing enforces.
func enforcementOf(labels map[string]string) v1alpha1.Enforcement {
	if policy.IsLabelledAudit(labels) {
		return v1alpha1.EnforcementAudit
	}
	return v1alpha1.EnforcementEnforce
}

func isAudited(e v1alpha1.Enforcement) bool { return e == v1alpha1.EnforcementAudit }

// Isolates reports whether one spec isolates the pods that another selects, in the directions of the other, or audits them as the other does.
func Isolates(spec, other *v1alpha1.PolicyEndpointSpec) bool {
	if isAudited(spec.Enforcement) != isAudited(other.Enforcement) {
		return false
	}
	for _, t := range other.PolicyTypes {
		if !slices.Contains(spec.PolicyTypes, t) {
			return false
		}
	}
	return equality.Semantic.DeepEqual(spec.PodSelector, other.PodSelector)
}

// Isolating returns the endpoint without its rules and groups.
func (e *Endpoint) Isolating() *Endpoint {
	out, spec := *e, *e.Spec
	spec.Ingress, spec.Egress = nil, nil
	out.Spec, out.Groups = &spec, nil
	return &out
}

func (o *rendered) problem(reason, format string, args ...any) {
	o.problems = append(o.problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

// apiPeers are some of a rule's peers in the form of the API.
type apiPeers struct {
	everyone bool
	peers    []v1alpha1.Peer
	origins  []int32
	ports    portSet
}

// peers renders peers as groups and CIDRs. A peer with a named port becomes one group for each number of the
// name.
func (r *renderer) peers(list []peerPorts, out *rendered) []apiPeers {
	type ruleName struct {
		rule int32
		name portName
	}
	known := map[ruleName]bool{} // names that pods of some peer of the rule have
	for _, p := range list {
		if p.name != (portName{}) && len(r.numbers(p.peer.pods, p.name).kept) > 0 {
			for _, rule := range p.origins {
				known[ruleName{rule, p.name}] = true
			}
		}
	}
	var peers []apiPeers
	for _, p := range list {
		a := apiPeers{everyone: p.peer.everyone, origins: p.origins, ports: p.ports}
		switch {
		case p.peer.everyone:
			peers = append(peers, a)
		case len(p.peer.names) > 0:
			a.peers = []v1alpha1.Peer{{DomainNames: p.peer.names}}
			peers = append(peers, a)
		case p.peer.pods == nil:
			a.peers = p.peer.block.peers()
			peers = append(peers, a)
		case p.peer.pods.within != nil && len(p.peer.pods.within.except) > v1alpha1.MaxExceptsPerBlock:
			out.problem(v1alpha1.ReasonTooLarge, "spec.egress[%d]: a named port together with an ipBlock of %d excepts (maximum %d); split the block in two",
				p.origins[0], len(p.peer.pods.within.except), v1alpha1.MaxExceptsPerBlock)
		case p.name == portName{}:
			a.peers = r.group(p.peer.pods, nil, out)
			peers = append(peers, a)
		default:
			numbers, leftOut := r.numbers(p.peer.pods, p.name).most(r.mostNumbers)
			switch {
			case leftOut > 0:
				out.problem(v1alpha1.ReasonUnresolvedNamedPort,
					"spec.egress[%d].ports: the pods of the peers give %d numbers to a %s, and %d of them are left out: at most %d of one namespace and %d in all",
					p.origins[0], len(numbers)+leftOut, p.name, leftOut, numbersOfNamespace, r.mostNumbers)
			case len(numbers) > 0:
			case known[ruleName{p.origins[0], p.name}]:
				out.problem(v1alpha1.ReasonUnresolvedNamedPort, "spec.egress[%d].ports: some of the peers have no pod with a %s", p.origins[0], p.name)
			default:
				out.problem(v1alpha1.ReasonUnresolvedNamedPort, "spec.egress[%d].ports: no pod among the peers has a %s", p.origins[0], p.name)
			}
			for _, number := range numbers {
				a.peers = r.group(p.peer.pods, &policy.NamedPort{Protocol: p.name.protocol, Name: p.name.name, Port: number}, out)
				a.ports = portSet{ranges: []policy.PortRange{{Protocol: p.name.protocol, First: number, Last: number}}}
				peers = append(peers, a)
			}
		}
	}
	return peers
}

func (r *renderer) group(set *podSet, port *policy.NamedPort, out *rendered) []v1alpha1.Peer {
	ref := r.ref(set, port)
	if r.collides != nil && r.collides(ref) {
		out.collisions++
		out.problem(v1alpha1.ReasonInvalidPeer, "a peer's group would have the name of another group, %s, and is left out; change the peer's selectors", ref.key.Name)
		return nil
	}
	out.groups = append(out.groups, ref)
	return []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: ref.key.Name, Shared: set.isShared()}}}
}

func (r *renderer) ref(set *podSet, port *policy.NamedPort) groupRef {
	namespace, kind := r.namespace, localGroup
	switch {
	case set.nodes:
		namespace, kind = r.shared, nodesGroup
	case set.namespaces != nil:
		namespace, kind = r.shared, sharedGroup
	}
	return groupRef{policy.GroupKey{Namespace: namespace, Name: groupName(kind, set, port)}, set, port}
}

// rules puts peers of the same rules with the same ports into one entry, or into several if they do not fit.
func rules(list []apiPeers) []v1alpha1.Rule {
	type entry struct {
		key      string
		everyone bool
		rule     v1alpha1.Rule
	}
	var entries []entry
	byKey := map[string]int{}
	for _, a := range list {
		key := fmt.Sprintf("%t %v %v %v", a.everyone, a.origins, a.ports.everything, a.ports.ranges)
		i, ok := byKey[key]
		if !ok {
			i = len(entries)
			byKey[key] = i
			entries = append(entries, entry{key, a.everyone, v1alpha1.Rule{Action: v1alpha1.ActionAllow, RuleIndexes: a.origins, Ports: a.ports.api()}})
		}
		entries[i].rule.Peers = append(entries[i].rule.Peers, a.peers...)
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(slices.Compare(a.rule.RuleIndexes, b.rule.RuleIndexes), -compareBools(a.everyone, b.everyone), strings.Compare(a.key, b.key))
	})
	var out []v1alpha1.Rule
	for _, e := range entries {
		slices.SortFunc(e.rule.Peers, comparePeers)
		if e.everyone {
			out = append(out, e.rule)
		}
		for peers := range slices.Chunk(e.rule.Peers, v1alpha1.MaxPeersPerRule) {
			rule := e.rule
			rule.Peers = peers
			out = append(out, rule)
		}
	}
	return out
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// comparePeers orders groups by name, and after them CIDRs by address.
func comparePeers(a, b v1alpha1.Peer) int {
	switch {
	case a.Group != nil && b.Group != nil:
		return cmp.Or(strings.Compare(a.Group.Name, b.Group.Name), compareBools(a.Group.Shared, b.Group.Shared))
	case a.Group != nil || b.Group != nil:
		return -compareBools(a.Group != nil, b.Group != nil)
	case len(a.DomainNames) > 0 || len(b.DomainNames) > 0: // after groups, before blocks
		return cmp.Or(-compareBools(len(a.DomainNames) > 0, len(b.DomainNames) > 0), slices.Compare(a.DomainNames, b.DomainNames))
	}
	return cmp.Or(
		comparePrefixes(netip.MustParsePrefix(string(a.CIDR)), netip.MustParsePrefix(string(b.CIDR))),
		slices.Compare(a.Except, b.Except),
	)
}

// outOfBounds describes the field that the schema would reject; empty if there is none.
func outOfBounds(spec *v1alpha1.PolicyEndpointSpec) string {
	for d, rules := range [2][]v1alpha1.Rule{spec.Ingress, spec.Egress} {
		field := [2]string{"spec.ingress", "spec.egress"}[d]
		if len(rules) > v1alpha1.MaxRules {
			return fmt.Sprintf("%s comes to %d entries of different rules and ports, of %d at most", field, len(rules), v1alpha1.MaxRules)
		}
		for _, r := range rules {
			if len(r.Ports) > v1alpha1.MaxPortsPerRule {
				return fmt.Sprintf("%s[%d].ports comes to %d ranges, of %d at most", field, r.RuleIndexes[0], len(r.Ports), v1alpha1.MaxPortsPerRule)
			}
			if len(r.RuleIndexes) > v1alpha1.MaxRuleIndexesPerRule {
				return fmt.Sprintf("%s names one peer in %d rules, of %d at most", field, len(r.RuleIndexes), v1alpha1.MaxRuleIndexesPerRule)
			}
		}
	}
	if data, err := json.Marshal(spec); err == nil && len(data) > v1alpha1.MaxSpecBytes {
		return fmt.Sprintf("spec comes to %d bytes of a PolicyEndpoint, of %d at most", len(data), v1alpha1.MaxSpecBytes)
	}
	return ""
}
