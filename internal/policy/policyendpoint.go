package policy

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// FromPolicyEndpoint reads a PolicyEndpoint. shared is kidoban's own namespace, which has the slices of shared groups. The
// error names a field that cannot be read or that agents cannot enforce: a newer version wrote it, or the schema has a gap.
func FromPolicyEndpoint(pe *v1alpha1.PolicyEndpoint, shared string) (*Policy, error) {
	p := &Policy{
		ID: idOf(pe.Namespace, &pe.Spec.PolicyRef), Created: created(pe), Tier: TierNetworkPolicy,
		Audited: pe.Spec.Enforcement == v1alpha1.EnforcementAudit,
	}
	if err := enforceable(pe.Spec.UnknownFields, pe.Spec.Enforcement); err != nil {
		return nil, err
	}
	for i, t := range pe.Spec.PolicyTypes {
		switch t {
		case v1alpha1.PolicyTypeIngress:
			p.Isolates[Ingress] = true
		case v1alpha1.PolicyTypeEgress:
			p.Isolates[Egress] = true
		default:
			return nil, fmt.Errorf("spec.policyTypes[%d]: unknown policy type %q", i, t)
		}
	}
	r := reader{namespace: pe.Namespace, shared: shared, actions: map[v1alpha1.Action]Action{v1alpha1.ActionAllow: Allow}}
	return r.read(p, pe.Spec.Ingress, pe.Spec.Egress)
}

// FailClosed returns the policy to enforce in place of a PolicyEndpoint that FromPolicyEndpoint cannot read. It isolates
// pods in the directions of the policy types and allows nothing. A policy type that is unknown stands for both directions. One
// that is to be audited stays so: it isolates no pod.
func FailClosed(pe *v1alpha1.PolicyEndpoint) *Policy {
	p := &Policy{
		ID: idOf(pe.Namespace, &pe.Spec.PolicyRef), Tier: TierNetworkPolicy, Audited: pe.Spec.Enforcement == v1alpha1.EnforcementAudit,
	}
	for _, t := range pe.Spec.PolicyTypes {
		p.Isolates[Ingress] = p.Isolates[Ingress] || t != v1alpha1.PolicyTypeEgress
		p.Isolates[Egress] = p.Isolates[Egress] || t != v1alpha1.PolicyTypeIngress
	}
	return p
}

// FromClusterPolicyEndpoint reads a ClusterPolicyEndpoint. The caller parses the subject, which is not part of a Policy.
// For shared and the error see FromPolicyEndpoint.
func FromClusterPolicyEndpoint(cpe *v1alpha1.ClusterPolicyEndpoint, shared string) (*Policy, error) {
	return fromCluster(cpe, shared, Allow)
}

// FromClusterPolicyEndpointStrict is FromClusterPolicyEndpoint for pods that are denied what no policy decides about, as in mode
// strict: a Pass of the Baseline tier denies there.
func FromClusterPolicyEndpointStrict(cpe *v1alpha1.ClusterPolicyEndpoint, shared string) (*Policy, error) {
	return fromCluster(cpe, shared, Deny)
}

// fromCluster reads a ClusterPolicyEndpoint. passed is what happens to a flow that the Baseline tier passes.
func fromCluster(cpe *v1alpha1.ClusterPolicyEndpoint, shared string, passed Action) (*Policy, error) {
	p := &Policy{
		ID: idOf("", &cpe.Spec.PolicyRef), Priority: cpe.Spec.Priority, Audited: cpe.Spec.Enforcement == v1alpha1.EnforcementAudit,
	}
	if err := enforceable(cpe.Spec.UnknownFields, cpe.Spec.Enforcement); err != nil {
		return nil, err
	}
	switch cpe.Spec.Tier {
	case v1alpha1.TierAdmin:
		p.Tier = TierAdmin
	case v1alpha1.TierBaseline:
		p.Tier = TierBaseline
	default:
		return nil, fmt.Errorf("spec.tier: unknown tier %q", cpe.Spec.Tier)
	}
	p.Isolates = [2]bool{Ingress: len(cpe.Spec.Ingress) > 0, Egress: len(cpe.Spec.Egress) > 0}
	return clusterReader(shared, p.Tier, passed).read(p, cpe.Spec.Ingress, cpe.Spec.Egress)
}

// clusterReader reads rules of a tier. After Baseline no policy decides, so a Pass there is what happens to flows without a decision.
func clusterReader(shared string, tier Tier, passed Action) *reader {
	actions := map[v1alpha1.Action]Action{v1alpha1.ActionAccept: Allow, v1alpha1.ActionDeny: Deny, v1alpha1.ActionPass: Pass}
	if tier == TierBaseline {
		actions[v1alpha1.ActionPass] = passed
	}
	return &reader{shared: shared, actions: actions}
}

// GroupKeys returns the keys of the groups that rules of an object in this namespace refer to, each as often as they do.
func GroupKeys(namespace, shared string, rules ...[]v1alpha1.Rule) []GroupKey {
	var out []GroupKey
	for _, list := range rules {
		for i := range list {
			for _, p := range list[i].Peers {
				if p.Group != nil {
					out = append(out, groupKey(namespace, shared, p.Group))
				}
			}
		}
	}
	return out
}

func groupKey(namespace, shared string, ref *v1alpha1.GroupReference) GroupKey {
	if ref.Shared {
		namespace = shared
	}
	return GroupKey{Namespace: namespace, Name: ref.Name}
}

func created(pe *v1alpha1.PolicyEndpoint) int64 {
	if pe.CreationTimestamp.IsZero() {
		return 0
	}
	return pe.CreationTimestamp.Unix()
}

func idOf(namespace string, ref *v1alpha1.PolicyReference) ID {
	return ID{Kind: ref.Kind, Namespace: namespace, Name: ref.Name, UID: string(ref.UID), Generation: ref.Generation}
}

func enforceable(unknownFields []string, enforcement v1alpha1.Enforcement) error {
	if len(unknownFields) > 0 {
		return fmt.Errorf("spec.%s: unknown field; a newer version of kidoban wrote it: upgrade this one", unknownFields[0])
	}
	switch enforcement {
	case v1alpha1.EnforcementEnforce, v1alpha1.EnforcementAudit, "":
		return nil
	}
	return fmt.Errorf("spec.enforcement: unknown value %q", enforcement)
}

// reader reads the rules of one object. namespace is empty for an object without one.
type reader struct {
	namespace, shared string
	actions           map[v1alpha1.Action]Action // those that the kind admits
}

// read adds the rules to a policy.
func (r *reader) read(p *Policy, ingress, egress []v1alpha1.Rule) (_ *Policy, err error) {
	if p.Rules[Ingress], err = r.rules("spec.ingress", ingress); err != nil {
		return nil, err
	}
	if p.Rules[Egress], err = r.rules("spec.egress", egress); err != nil {
		return nil, err
	}
	return p, nil
}

func (r *reader) rules(path string, rules []v1alpha1.Rule) ([]Rule, error) {
	out := make([]Rule, 0, len(rules))
	for i := range rules {
		in := &rules[i]
		action, ok := r.actions[in.Action]
		if !ok {
			return nil, fmt.Errorf("%s[%d].action: unknown action %q", path, i, in.Action)
		}
		rule := Rule{Name: in.Name, Action: action, Origin: in.RuleIndexes, Everyone: len(in.Peers) == 0, EveryPort: len(in.Ports) == 0}
		peers := newPeerPacker(len(in.Peers))
		for j := range in.Peers {
			peer, err := r.peer(&in.Peers[j])
			if err == nil && len(peer.DomainNames) > 0 {
				err = mayHaveNames(path, action)
			}
			if err != nil {
				return nil, fmt.Errorf("%s[%d].peers[%d].%w", path, i, j, err)
			}
			peers.peer(&peer)
		}
		rule.Peers = peers.list()
		if len(in.Ports) > 0 {
			rule.Ports = make([]PortRange, 0, len(in.Ports))
		}
		for j, port := range in.Ports {
			pr, err := portRange(port)
			if err != nil {
				return nil, fmt.Errorf("%s[%d].ports[%d].%w", path, i, j, err)
			}
			rule.Ports = append(rule.Ports, pr)
		}
		out = append(out, rule)
	}
	return out, nil
}

func (r *reader) peer(in *v1alpha1.Peer) (Peer, error) {
	switch {
	case len(in.DomainNames) > 0 && (in.Group != nil || in.CIDR != ""):
		return Peer{}, fmt.Errorf("domainNames: set exactly one of group, cidr and domainNames")
	case len(in.DomainNames) > 0:
		return fromNames(in)
	case (in.Group == nil) == (in.CIDR == ""):
		return Peer{}, fmt.Errorf("group: set exactly one of group, cidr and domainNames")
	case in.Group == nil:
		return fromBlock(in)
	case r.namespace == "" && !in.Group.Shared:
		return Peer{}, fmt.Errorf("group.shared: must be true in an object without a namespace")
	}
	return Peer{Group: groupKey(r.namespace, r.shared, in.Group)}, nil
}

// mayHaveNames returns an error if a rule must not have domain names. What a name stands for is unknown before the first answer, so a rule
// that denies it would allow it until then.
func mayHaveNames(path string, action Action) error {
	switch {
	case strings.HasPrefix(path, "spec.ingress"):
		return fmt.Errorf("domainNames: domain names are for egress only")
	case action != Allow:
		return fmt.Errorf("domainNames: domain names are for rules that allow, not for %s", action)
	}
	return nil
}

func fromNames(in *v1alpha1.Peer) (Peer, error) {
	if len(in.Except) > 0 {
		return Peer{}, fmt.Errorf("except: needs a cidr")
	}
	p := Peer{DomainNames: make([]string, 0, len(in.DomainNames))}
	for i, n := range in.DomainNames {
		name, err := CanonicalDomainName(string(n))
		if err != nil {
			return Peer{}, fmt.Errorf("domainNames[%d]: %w", i, err)
		}
		p.DomainNames = append(p.DomainNames, name)
	}
	return p, nil
}

func fromBlock(in *v1alpha1.Peer) (Peer, error) {
	cidr, err := ParseCIDR(in.CIDR)
	if err != nil {
		return Peer{}, fmt.Errorf("cidr: %w", err)
	}
	p := Peer{CIDR: cidr}
	for i, e := range in.Except {
		except, err := ParseCIDR(e)
		if err != nil {
			return Peer{}, fmt.Errorf("except[%d]: %w", i, err)
		}
		if except.Bits() < cidr.Bits() || !cidr.Contains(except.Addr()) {
			return Peer{}, fmt.Errorf("except[%d]: %s is not inside %s", i, except, cidr)
		}
		p.Except = append(p.Except, except)
	}
	return p, nil
}

// ParseCIDR reads an address block and clears its host bits. IPv4-mapped IPv6 blocks (in ::ffff:0:0/96) are an error: no
// packet has such an address.
func ParseCIDR(s v1alpha1.CIDR) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(string(s))
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%q is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32", s)
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%q is an IPv4-mapped block: write it as IPv4", s)
	}
	return p.Masked(), nil
}

func portRange(in v1alpha1.Port) (PortRange, error) {
	pr := PortRange{Name: in.Name}
	switch in.Protocol {
	case v1alpha1.ProtocolTCP, "":
		pr.Protocol = TCP
	case v1alpha1.ProtocolUDP:
		pr.Protocol = UDP
	case v1alpha1.ProtocolSCTP:
		pr.Protocol = SCTP
	default:
		return pr, fmt.Errorf("protocol: unknown protocol %q", in.Protocol)
	}
	last := in.EndPort
	if last == 0 {
		last = in.Port
	}
	switch {
	case in.Name != "" && (in.Port != 0 || in.EndPort != 0):
		return pr, fmt.Errorf("name: name and port exclude each other")
	case in.Name != "":
	case in.Port == 0 && in.EndPort == 0:
		pr.Last = 65535
	case in.Port < 1 || last < in.Port || last > 65535:
		return pr, fmt.Errorf("port: %d–%d is not a range of ports", in.Port, last)
	default:
		pr.First, pr.Last = uint16(in.Port), uint16(last)
	}
	return pr, nil
}
