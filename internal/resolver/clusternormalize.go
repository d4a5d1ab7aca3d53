package resolver

import (
	"fmt"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// normalizedCluster is the content of a ClusterNetworkPolicy in a form that does not depend on the cluster.
type normalizedCluster struct {
	// subject selects no pod if it cannot be read: a mistake in one policy must not close every pod of the cluster.
	subject v1alpha1.Subject
	// rules of each direction in their order. A rule that cannot be read is closed: it is left out if it accepts, and
	// denies everything otherwise.
	rules    [2][]clusterRule
	problems []Problem
}

// clusterRule is a rule of a ClusterNetworkPolicy.
type clusterRule struct {
	name   string
	action v1alpha1.Action
	index  int32
	peers  []peer
	// ports are the numbers and, for ingress, the names that the selected pods give to theirs. For egress, names are
	// separate: their numbers depend on the peers.
	ports portSet
	names []string
}

// namedPortProtocols are the protocols that a named port may have: a ClusterNetworkPolicy names no protocol beside it.
var namedPortProtocols = [...]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// normalizeCluster reads a ClusterNetworkPolicy.
func normalizeCluster(np *cnp.ClusterNetworkPolicy) *normalizedCluster {
	out := &normalizedCluster{}
	b := clusterBuilder{out: out, tier: np.Spec.Tier}
	if err := policy.CheckEnforcement(np.Labels); err != nil {
		b.problem(v1alpha1.ReasonInvalidEnforcement, "%v", err)
	}
	out.subject = b.subject(&np.Spec.Subject)
	for i, r := range np.Spec.Ingress {
		rule := clusterSource{path: fmt.Sprintf("spec.ingress[%d]", i), field: "from", name: r.Name, action: r.Action, protocols: r.Protocols}
		for _, p := range r.From {
			rule.peers = append(rule.peers, cnp.ClusterNetworkPolicyEgressPeer{Namespaces: p.Namespaces, Pods: p.Pods})
		}
		b.rule(policy.Ingress, int32(i), &rule)
	}
	for i, r := range np.Spec.Egress {
		b.rule(policy.Egress, int32(i), &clusterSource{
			path: fmt.Sprintf("spec.egress[%d]", i), field: "to", name: r.Name, action: r.Action, peers: r.To, protocols: r.Protocols,
		})
	}
	out.problems = sortProblems(out.problems)
	return out
}

// clusterSource is a rule of either direction as the policy has it.
type clusterSource struct {
	path, field string
	name        string
	action      cnp.ClusterNetworkPolicyRuleAction
	peers       []cnp.ClusterNetworkPolicyEgressPeer
	protocols   []cnp.ClusterNetworkPolicyProtocol
}

type clusterBuilder struct {
	out  *normalizedCluster
	tier cnp.Tier
}

func (b *clusterBuilder) problem(reason, format string, args ...any) {
	b.out.problems = append(b.out.problems, Problem{Reason: reason, Message: fmt.Sprintf(format, args...)})
}

func (b *clusterBuilder) subject(s *cnp.ClusterNetworkPolicySubject) v1alpha1.Subject {
	var err error
	switch {
	case s.Namespaces != nil:
		if _, err = parseSelector(s.Namespaces); err == nil {
			return v1alpha1.Subject{NamespaceSelector: *s.Namespaces.DeepCopy()}
		}
		b.problem(v1alpha1.ReasonInvalidSelector, "spec.subject.namespaces: %v; the policy selects no pod", err)
	case s.Pods != nil:
		_, err = parseSelector(&s.Pods.NamespaceSelector)
		_, err2 := parseSelector(&s.Pods.PodSelector)
		if err == nil && err2 == nil {
			return v1alpha1.Subject{NamespaceSelector: *s.Pods.NamespaceSelector.DeepCopy(), PodSelector: *s.Pods.PodSelector.DeepCopy()}
		}
		if err == nil {
			err = err2
		}
		b.problem(v1alpha1.ReasonInvalidSelector, "spec.subject.pods: %v; the policy selects no pod", err)
	default:
		b.problem(v1alpha1.ReasonInvalidSelector, "spec.subject: a kind of subject that this version does not know; the policy selects no pod")
	}
	nothing := selector{nothing: true}
	return v1alpha1.Subject{NamespaceSelector: *nothing.labelSelector()}
}

// rule adds a rule. "For Accept rules, fail closed means: treat the rule as matching no traffic. For Deny and Pass rules:
// treat the rule as a 'Deny all' rule."
func (b *clusterBuilder) rule(d policy.Direction, index int32, in *clusterSource) {
	rule := clusterRule{name: in.name, index: index}
	readable := true
	switch in.action {
	case cnp.ClusterNetworkPolicyRuleActionAccept:
		rule.action = v1alpha1.ActionAccept
	case cnp.ClusterNetworkPolicyRuleActionDeny:
		rule.action = v1alpha1.ActionDeny
	case cnp.ClusterNetworkPolicyRuleActionPass:
		rule.action = v1alpha1.ActionPass
	default:
		b.problem(v1alpha1.ReasonInvalidPeer, "%s.action: unknown action %q", in.path, in.action)
		readable = false
	}
	if !b.peers(d, in, &rule) || !b.ports(d, in, &rule) {
		readable = false
	}
	switch {
	case readable:
		if len(rule.peers) > 0 {
			b.out.rules[d] = append(b.out.rules[d], rule)
		}
	case rule.action == v1alpha1.ActionAccept:
		b.problem(v1alpha1.ReasonInvalidPeer, "%s: the rule accepts nothing, because a part of it cannot be read", in.path)
	default:
		b.problem(v1alpha1.ReasonInvalidPeer, "%s: the rule denies everything, because a part of it cannot be read", in.path)
		b.out.rules[d] = append(b.out.rules[d], clusterRule{
			name: in.name, action: v1alpha1.ActionDeny, index: index, peers: []peer{{everyone: true}}, ports: portSet{everything: true},
		})
	}
}

// peers reads the peers of a rule; false if one of them cannot be read.
func (b *clusterBuilder) peers(d policy.Direction, in *clusterSource, rule *clusterRule) bool {
	ok := true
	for i := range in.peers {
		path := fmt.Sprintf("%s.%s[%d]", in.path, in.field, i)
		peers, err := b.peer(path, in, &in.peers[i])
		if err != nil {
			b.problem(reasonOf(&in.peers[i]), "%s%v", path, err)
			ok = false
			continue
		}
		rule.peers = append(rule.peers, peers...)
	}
	return ok
}

// reasonOf is the reason of a peer that cannot be read.
func reasonOf(p *cnp.ClusterNetworkPolicyEgressPeer) string {
	switch {
	case p.Namespaces != nil || p.Pods != nil || p.Nodes != nil:
		return v1alpha1.ReasonInvalidSelector
	case len(p.Networks) == 0 && len(p.DomainNames) > 0:
		return v1alpha1.ReasonUnsupportedDomainNames
	}
	return v1alpha1.ReasonInvalidPeer
}

func (b *clusterBuilder) peer(path string, in *clusterSource, from *cnp.ClusterNetworkPolicyEgressPeer) ([]peer, error) {
	switch {
	case from.Namespaces != nil:
		namespaces, err := parseSelector(from.Namespaces)
		if err != nil {
			return nil, fmt.Errorf(".namespaces: %w", err)
		}
		return []peer{{pods: &podSet{namespaces: &namespaces}}}, nil
	case from.Pods != nil:
		namespaces, err := parseSelector(&from.Pods.NamespaceSelector)
		if err != nil {
			return nil, fmt.Errorf(".pods.namespaceSelector: %w", err)
		}
		pods, err := parseSelector(&from.Pods.PodSelector)
		if err != nil {
			return nil, fmt.Errorf(".pods.podSelector: %w", err)
		}
		return []peer{{pods: &podSet{namespaces: &namespaces, pods: pods}}}, nil
	case from.Nodes != nil:
		nodes, err := parseSelector(from.Nodes)
		if err != nil {
			return nil, fmt.Errorf(".nodes: %w", err)
		}
		return []peer{{pods: &podSet{nodes: true, pods: nodes}}}, nil
	case len(from.Networks) > 0:
		var out []peer
		for i, n := range from.Networks {
			network, err := parseBlock(&networkingv1.IPBlock{CIDR: string(n)})
			if err != nil {
				return nil, fmt.Errorf(".networks[%d]: %w", i, err)
			}
			out = append(out, peer{block: network})
		}
		return out, nil
	case len(from.DomainNames) > 0:
		if in.action != cnp.ClusterNetworkPolicyRuleActionAccept || b.tier != cnp.AdminTier {
			return nil, fmt.Errorf(".domainNames: domain names are for Accept rules of the Admin tier")
		}
		return b.names(path, from.DomainNames), nil
	}
	return nil, fmt.Errorf(": a kind of peer that this version does not know")
}

// names reads the domain names of a peer, without those that the CRD takes and DNS cannot mean: they match nothing.
func (b *clusterBuilder) names(path string, from []cnp.DomainName) []peer {
	var out peer
	for i, n := range from {
		name, err := policy.CanonicalDomainName(string(n))
		if err != nil {
			b.problem(v1alpha1.ReasonInvalidDomainName, "%s.domainNames[%d]: %v; it matches nothing", path, i, err)
			continue
		}
		if !slices.Contains(out.names, v1alpha1.DomainName(name)) {
			out.names = append(out.names, v1alpha1.DomainName(name))
		}
	}
	if len(out.names) == 0 {
		return nil
	}
	return []peer{out}
}

// ports reads the protocols of a rule; false if one of them cannot be read.
func (b *clusterBuilder) ports(d policy.Direction, in *clusterSource, rule *clusterRule) bool {
	ok := true
	rule.ports.everything = len(in.protocols) == 0
	for i := range in.protocols {
		path := fmt.Sprintf("%s.protocols[%d]", in.path, i)
		p := &in.protocols[i]
		if name := p.DestinationNamedPort; name != "" {
			if wrong := validation.IsValidPortName(name); len(wrong) > 0 {
				b.problem(v1alpha1.ReasonInvalidPort, "%s.destinationNamedPort: %q is not a valid port name: %s", path, name, wrong[0])
				continue // no container can have it
			}
			b.namedPort(d, path, in, name, rule)
			continue
		}
		r, err := parseClusterPort(p)
		if err != nil {
			b.problem(v1alpha1.ReasonInvalidPort, "%s%v", path, err)
			ok = false
			continue
		}
		rule.ports.ranges = append(rule.ports.ranges, r)
	}
	rule.ports.canonical()
	return ok
}

// namedPort adds a named port, which only pods have: of networks, those pods that are in them; of nodes, none.
func (b *clusterBuilder) namedPort(d policy.Direction, path string, in *clusterSource, name string, rule *clusterRule) {
	if d == policy.Ingress {
		for _, protocol := range namedPortProtocols {
			rule.ports.ranges = append(rule.ports.ranges, policy.PortRange{Protocol: protocol, Name: name})
		}
		return
	}
	if !slices.Contains(rule.names, name) {
		rule.names = append(rule.names, name)
	}
	for i, p := range in.peers {
		switch {
		case p.Nodes != nil:
			b.problem(v1alpha1.ReasonInvalidPort, "%s.destinationNamedPort: only pods name ports: %s.%s[%d].nodes matches nothing with it", path, in.path, in.field, i)
		case len(p.DomainNames) > 0:
			b.problem(v1alpha1.ReasonInvalidPort, "%s.destinationNamedPort: only pods name ports: %s.%s[%d].domainNames matches nothing with it", path, in.path, in.field, i)
		case len(p.Networks) > 0:
			b.problem(v1alpha1.ReasonInvalidPort, "%s.destinationNamedPort: only pods name ports: %s.%s[%d].networks matches only pods with it", path, in.path, in.field, i)
		}
	}
}

// parseClusterPort reads a protocol that is not a named port. The error begins with the field that cannot be read.
func parseClusterPort(p *cnp.ClusterNetworkPolicyProtocol) (policy.PortRange, error) {
	var (
		protocol policy.Protocol
		port     *cnp.Port
		field    string
	)
	switch {
	case p.TCP != nil:
		protocol, port, field = policy.TCP, p.TCP.DestinationPort, "tcp"
	case p.UDP != nil:
		protocol, port, field = policy.UDP, p.UDP.DestinationPort, "udp"
	case p.SCTP != nil:
		protocol, port, field = policy.SCTP, p.SCTP.DestinationPort, "sctp"
	default:
		return policy.PortRange{}, fmt.Errorf(": a kind of protocol that this version does not know")
	}
	if port == nil {
		return policy.AllPorts(protocol), nil
	}
	first, last := port.Number, port.Number
	switch {
	case port.Range != nil:
		first, last = port.Range.Start, port.Range.End
	case port.Number == 0:
		return policy.PortRange{}, fmt.Errorf(".%s.destinationPort: a kind of port that this version does not know", field)
	}
	if first < 1 || last > 65535 || first > last {
		return policy.PortRange{}, fmt.Errorf(".%s.destinationPort: %d to %d is not a range within 1 to 65535", field, first, last)
	}
	return policy.PortRange{Protocol: protocol, First: uint16(first), Last: uint16(last)}, nil
}
