package policy

import (
	"fmt"
	"net/netip"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// FromPolicyEndpoint reads a PolicyEndpoint. group gives the key of a group that the PolicyEndpoint refers to by name. The error names
// the field that cannot be read; the API server refuses such an object, so it comes from a newer version or a gap in the schema.
func FromPolicyEndpoint(pe *v1alpha1.PolicyEndpoint, group func(name string) GroupKey) (*Policy, error) {
	ref := pe.Spec.PolicyRef
	p := &Policy{
		ID:       ID{Kind: ref.Kind, Namespace: pe.Namespace, Name: ref.Name, UID: string(ref.UID), Generation: ref.Generation},
		Priority: pe.Spec.Priority,
	}
	switch pe.Spec.Tier {
	case v1alpha1.TierAdmin:
		p.Tier = TierAdmin
	case v1alpha1.TierNetworkPolicy, "":
		p.Tier = TierNetworkPolicy
	case v1alpha1.TierBaseline:
		p.Tier = TierBaseline
	default:
		return nil, fmt.Errorf("spec.tier: unknown tier %q", pe.Spec.Tier)
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
	var err error
	if p.Rules[Ingress], err = fromRules("spec.ingress", pe.Spec.Ingress, group); err != nil {
		return nil, err
	}
	if p.Rules[Egress], err = fromRules("spec.egress", pe.Spec.Egress, group); err != nil {
		return nil, err
	}
	return p, nil
}

// GroupNames are the names of the groups that a PolicyEndpoint refers to, each as often as it does.
func GroupNames(spec *v1alpha1.PolicyEndpointSpec) []string {
	var out []string
	for _, rules := range [...][]v1alpha1.Rule{spec.Ingress, spec.Egress} {
		for i := range rules {
			for _, p := range rules[i].Peers {
				if p.Group != "" {
					out = append(out, p.Group)
				}
			}
		}
	}
	return out
}

func fromRules(path string, rules []v1alpha1.Rule, group func(string) GroupKey) ([]Rule, error) {
	out := make([]Rule, 0, len(rules))
	for i := range rules {
		in := &rules[i]
		r := Rule{Origin: in.Rules, Everyone: len(in.Peers) == 0, EveryPort: len(in.Ports) == 0}
		for j := range in.Peers {
			peer, err := fromPeer(&in.Peers[j], group)
			if err != nil {
				return nil, fmt.Errorf("%s[%d].peers[%d].%w", path, i, j, err)
			}
			r.Peers = append(r.Peers, peer)
		}
		for j, port := range in.Ports {
			pr, err := fromPort(port)
			if err != nil {
				return nil, fmt.Errorf("%s[%d].ports[%d].%w", path, i, j, err)
			}
			r.Ports = append(r.Ports, pr)
		}
		out = append(out, r)
	}
	return out, nil
}

func fromPeer(in *v1alpha1.Peer, group func(string) GroupKey) (Peer, error) {
	if (in.Group == "") == (in.CIDR == "") {
		return Peer{}, fmt.Errorf("group: exactly one of group and cidr")
	}
	if in.Group != "" {
		return Peer{Group: group(in.Group)}, nil
	}
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

// ParseCIDR reads an address block; host bits are cleared. IPv4 in IPv6's clothes (::ffff:0:0/96) is refused: on the wire it is neither.
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

func fromPort(in v1alpha1.Port) (PortRange, error) {
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
		return pr, fmt.Errorf("port: %d–%d is no range of ports", in.Port, last)
	default:
		pr.First, pr.Last = uint16(in.Port), uint16(last)
	}
	return pr, nil
}
