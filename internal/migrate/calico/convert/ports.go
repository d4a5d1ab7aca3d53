package convert

import (
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/kidoban/kidoban/internal/migrate/calico"
	"github.com/kidoban/kidoban/internal/policy"
)

// portRange has both ends, from 1: port 0 is reserved (RFC 6335), and NetworkPolicies cannot name it.
type portRange struct{ first, last uint16 }

var allPorts = []portRange{{1, 65535}}

// portsOf one protocol: numbers, and names that mean a number for each pod.
type portsOf struct {
	ranges []portRange // sorted, apart from each other
	names  []string    // sorted
}

func (p portsOf) empty() bool { return len(p.ranges) == 0 && len(p.names) == 0 }
func (p portsOf) full() bool  { return slices.Equal(p.ranges, allPorts) }

func (p portsOf) normal() portsOf {
	slices.Sort(p.names)
	p.names = slices.Compact(p.names)
	if p.ranges = joined(p.ranges); p.full() {
		p.names = nil
	}
	return p
}

// ports is a set of protocols and ports.
type ports struct {
	of [len(withPorts)]portsOf
	// rest are the protocols without ports: those listed or, with others, all but those.
	others bool
	rest   []policy.Protocol // sorted
}

// withPorts are the protocols that have ports.
var withPorts = [...]policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

var everything = ports{of: [...]portsOf{{ranges: allPorts}, {ranges: allPorts}, {ranges: allPorts}}, others: true}

var errNames = errors.New("a port's name cannot be weighed against other ports: it is another number for each pod")

func (p ports) empty() bool {
	return !slices.ContainsFunc(p.of[:], func(o portsOf) bool { return !o.empty() }) && !p.others && len(p.rest) == 0
}

func (p ports) isEverything() bool {
	return !slices.ContainsFunc(p.of[:], func(o portsOf) bool { return !o.full() }) && p.others && len(p.rest) == 0
}

func (p ports) has(protocol policy.Protocol) bool {
	return slices.Contains(p.rest, protocol) != p.others
}

// combine the sets: what is in p and (keep: too, else: not) in o.
func (p ports) combine(o ports, keep bool) (ports, error) {
	out := ports{others: p.others && o.others == keep}
	for _, protocol := range slices.Concat(p.rest, o.rest) {
		if (p.has(protocol) && o.has(protocol) == keep) != out.others {
			out.rest = append(out.rest, protocol)
		}
	}
	slices.Sort(out.rest)
	out.rest = slices.Compact(out.rest)
	for i := range withPorts {
		var err error
		if out.of[i], err = p.of[i].combine(o.of[i], keep); err != nil {
			return ports{}, err
		}
	}
	return out, nil
}

func (p ports) intersect(o ports) (ports, error) { return p.combine(o, true) }
func (p ports) minus(o ports) (ports, error)     { return p.combine(o, false) }

func (p portsOf) combine(o portsOf, keep bool) (portsOf, error) {
	switch {
	case p.empty() || o.empty() && keep || o.full() && !keep:
		return portsOf{}, nil
	case o.empty() || o.full():
		return p, nil
	case p.full() && keep:
		return o, nil
	case slices.Equal(p.names, o.names) && len(p.ranges)+len(o.ranges) == 0:
		if keep {
			return p, nil
		}
		return portsOf{}, nil
	case len(p.names)+len(o.names) > 0:
		return portsOf{}, errNames
	}
	ranges := o.ranges
	if !keep {
		ranges = complement(ranges)
	}
	var out []portRange
	for _, a := range p.ranges {
		for _, b := range ranges {
			if first, last := max(a.first, b.first), min(a.last, b.last); first <= last {
				out = append(out, portRange{first, last})
			}
		}
	}
	return portsOf{ranges: out}, nil
}

func complement(ranges []portRange) []portRange {
	var out []portRange
	next := 1
	for _, r := range ranges {
		if next < int(r.first) {
			out = append(out, portRange{uint16(next), r.first - 1})
		}
		next = int(r.last) + 1
	}
	if next <= 65535 {
		out = append(out, portRange{uint16(next), 65535})
	}
	return out
}

// joined are the ranges in order, those that touch made one.
func joined(ranges []portRange) []portRange {
	slices.SortFunc(ranges, func(a, b portRange) int { return int(a.first) - int(b.first) })
	var out []portRange
	for _, r := range ranges {
		if r.first = max(r.first, 1); r.last == 0 {
			continue
		}
		if n := len(out); n > 0 && int(r.first) <= int(out[n-1].last)+1 {
			out[n-1].last = max(out[n-1].last, r.last)
			continue
		}
		out = append(out, r)
	}
	return out
}

func protocolOnly(p policy.Protocol) ports {
	var out ports
	for i, known := range withPorts {
		if known == p {
			out.of[i].ranges = allPorts
			return out
		}
	}
	out.rest = []policy.Protocol{p}
	return out
}

// portsOfRule are what a rule of Calico's says of protocols and ports.
func portsOfRule(r *calico.Rule) (ports, error) {
	out := everything
	if r.Protocol != nil {
		out = protocolOnly(policy.Protocol(*r.Protocol))
	}
	var err error
	if r.NotProtocol != nil {
		if out, err = out.minus(protocolOnly(policy.Protocol(*r.NotProtocol))); err != nil {
			return ports{}, err
		}
	}
	if err := calico.CheckPorts(r); err != nil {
		return ports{}, err
	}
	if len(r.Destination.Ports) > 0 {
		if out, err = out.intersect(listed(policy.Protocol(*r.Protocol), r.Destination.Ports)); err != nil {
			return ports{}, err
		}
	}
	if len(r.Destination.NotPorts) > 0 {
		return out.minus(listed(policy.Protocol(*r.Protocol), r.Destination.NotPorts))
	}
	return out, nil
}

func listed(protocol policy.Protocol, list []calico.Port) ports {
	var of portsOf
	for _, p := range list {
		if p.Name != "" {
			of.names = append(of.names, p.Name)
			continue
		}
		of.ranges = append(of.ranges, portRange{p.First, p.Last})
	}
	return single(protocol, of)
}

func single(protocol policy.Protocol, of portsOf) ports {
	out := ports{}
	out.of[slices.Index(withPorts[:], protocol)] = of.normal()
	return out
}

// portsOfPolicy are those of a rule of Kubernetes'.
func portsOfPolicy(list []networkingv1.NetworkPolicyPort) ports {
	if len(list) == 0 {
		return everything
	}
	var out ports
	for _, p := range list {
		i := slices.Index(withPorts[:], policy.ProtocolOf(p.Protocol))
		if i < 0 {
			continue
		}
		of := &out.of[i]
		switch {
		case p.Port == nil:
			of.ranges = append(of.ranges, allPorts...)
		case p.Port.StrVal != "":
			of.names = append(of.names, p.Port.StrVal)
		case p.EndPort != nil:
			of.ranges = append(of.ranges, portRange{uint16(p.Port.IntVal), uint16(*p.EndPort)})
		default:
			of.ranges = append(of.ranges, portRange{uint16(p.Port.IntVal), uint16(p.Port.IntVal)})
		}
	}
	for i := range out.of {
		out.of[i] = out.of[i].normal()
	}
	return out
}

// write the ports of a rule of Kubernetes'; none are everything.
func (p ports) write() ([]networkingv1.NetworkPolicyPort, error) {
	if p.isEverything() {
		return nil, nil
	}
	if p.others || len(p.rest) > 0 {
		return nil, errors.New("NetworkPolicies name the protocols TCP, UDP and SCTP, or allow everything; no other protocol can be allowed, or left out")
	}
	var out []networkingv1.NetworkPolicyPort
	for i, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		add := func(port *intstr.IntOrString, last *int32) {
			out = append(out, networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: port, EndPort: last})
		}
		if p.of[i].full() {
			add(nil, nil)
			continue
		}
		for _, r := range p.of[i].ranges {
			first, last := intstr.FromInt32(int32(r.first)), int32(r.last)
			if r.first == r.last {
				add(&first, nil)
				continue
			}
			add(&first, &last)
		}
		for _, name := range p.of[i].names {
			port := intstr.FromString(name)
			add(&port, nil)
		}
	}
	return out, nil
}
