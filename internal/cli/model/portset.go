package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// PortSet is a set of ports, exact: Everything, or ranges that are sorted, disjoint and apart.
type PortSet struct {
	// Everything is every port of every protocol, also of protocols that have no ports.
	Everything bool
	Ranges     []policy.PortRange
}

var portProtocols = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// Empty reports whether there is no port in the set.
func (s PortSet) Empty() bool { return !s.Everything && len(s.Ranges) == 0 }

// String is "TCP 80, TCP 8000-8080", "all ports" or "no port".
func (s PortSet) String() string {
	if s.Everything {
		return "all ports"
	}
	if len(s.Ranges) == 0 {
		return "no port"
	}
	if rest := (PortSet{Everything: true}).Minus(s); len(rest.Ranges) < len(s.Ranges) {
		return "all ports but " + names(rest.Ranges)
	}
	return names(s.Ranges)
}

func names(ranges []policy.PortRange) string {
	var out []string
	for _, r := range ranges {
		switch {
		case r.First <= 1 && r.Last == 65535:
			out = append(out, fmt.Sprintf("all of %s", r.Protocol))
		case r.First == r.Last:
			out = append(out, fmt.Sprintf("%s %d", r.Protocol, r.First))
		default:
			out = append(out, fmt.Sprintf("%s %d-%d", r.Protocol, r.First, r.Last))
		}
	}
	return strings.Join(out, ", ")
}

// MarshalText makes a PortSet a string in JSON.
func (s PortSet) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

func (s PortSet) ranges() []policy.PortRange {
	if !s.Everything {
		return s.Ranges
	}
	var out []policy.PortRange
	for _, p := range portProtocols {
		out = append(out, policy.PortRange{Protocol: p, First: 1, Last: 65535})
	}
	return out
}

// Minus is what is in s and not in t. Of everything less some ports, protocols without ports are not told.
func (s PortSet) Minus(t PortSet) PortSet {
	if t.Empty() {
		return s
	}
	if t.Everything {
		return PortSet{}
	}
	var out PortSet
	for _, r := range s.ranges() {
		from := int(r.First)
		for _, q := range t.Ranges {
			if q.Protocol != r.Protocol || int(q.Last) < from || q.First > r.Last {
				continue
			}
			if int(q.First) > from {
				out.Ranges = append(out.Ranges, policy.PortRange{Protocol: r.Protocol, First: uint16(from), Last: q.First - 1})
			}
			from = int(q.Last) + 1
		}
		if from <= int(r.Last) {
			out.Ranges = append(out.Ranges, policy.PortRange{Protocol: r.Protocol, First: uint16(from), Last: r.Last})
		}
	}
	return out
}

// Plus is what is in either.
func (s PortSet) Plus(t PortSet) PortSet {
	switch {
	case s.Everything || t.Empty():
		return s
	case t.Everything || s.Empty():
		return t
	}
	all := slices.Concat(s.Ranges, t.Ranges)
	slices.SortFunc(all, func(a, b policy.PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	var out PortSet
	for _, r := range all {
		if n := len(out.Ranges); n > 0 && out.Ranges[n-1].Protocol == r.Protocol && int(r.First) <= int(out.Ranges[n-1].Last)+1 {
			out.Ranges[n-1].Last = max(out.Ranges[n-1].Last, r.Last)
			continue
		}
		out.Ranges = append(out.Ranges, r)
	}
	return out
}

// ports are those on which a reaches b. Between the ports that rules and b's containers name, verdicts do not change: one of each
// such interval is asked about.
func ports(a, b *place) PortSet {
	if !a.isolated[policy.Egress] && !b.isolated[policy.Ingress] {
		return PortSet{Everything: true}
	}
	accepts := func(p Port) bool { return a.accepts(policy.Egress, b, p) && b.accepts(policy.Ingress, a, p) }
	// a protocol that has no ports is accepted by rules without ports only
	if accepts(Port{Protocol: policy.ICMP}) {
		return PortSet{Everything: true}
	}
	var out PortSet
	for _, protocol := range portProtocols {
		starts := []int{1}
		for _, r := range slices.Concat(a.rules[policy.Egress], b.rules[policy.Ingress]) {
			for i := range r.Ports {
				p := &r.Ports[i]
				if policy.ProtocolOf(p.Protocol) != protocol || p.Port == nil || p.Port.StrVal != "" {
					continue
				}
				last := p.Port.IntVal
				if p.EndPort != nil {
					last = *p.EndPort
				}
				starts = append(starts, int(p.Port.IntVal), int(last)+1)
			}
		}
		if b.pod != nil {
			for _, n := range policy.ContainerPorts(b.pod) {
				starts = append(starts, int(n.Port), int(n.Port)+1)
			}
		}
		slices.Sort(starts)
		starts = slices.DeleteFunc(slices.Compact(starts), func(n int) bool { return n < 1 || n > 65535 })
		for i, first := range starts {
			last := 65535
			if i+1 < len(starts) {
				last = starts[i+1] - 1
			}
			if accepts(Port{protocol, uint16(first)}) {
				out = out.Plus(PortSet{Ranges: []policy.PortRange{{Protocol: protocol, First: uint16(first), Last: uint16(last)}}})
			}
		}
	}
	return out
}
