package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kidoban/kidoban/internal/policy"
)

// PortSet is an exact set of ports.
type PortSet struct {
	// Others are the protocols besides TCP, UDP and SCTP, such as ICMP.
	Others bool
	// Ranges are sorted, disjoint and apart.
	Ranges []policy.PortRange
}

var portProtocols = []policy.Protocol{policy.TCP, policy.UDP, policy.SCTP}

// EveryPort is every port of every protocol, also of protocols that have no ports.
func EveryPort() PortSet {
	out := PortSet{Others: true}
	for _, p := range portProtocols {
		out.Ranges = append(out.Ranges, policy.PortRange{Protocol: p, First: 1, Last: 65535})
	}
	return out
}

// Empty reports whether there is no port in the set.
func (s PortSet) Empty() bool { return !s.Others && len(s.Ranges) == 0 }

func (s PortSet) equal(t PortSet) bool {
	return s.Others == t.Others && slices.Equal(s.Ranges, t.Ranges)
}

// Everything reports whether every port of every protocol is in the set.
func (s PortSet) Everything() bool { return s.Others && EveryPort().Minus(s).Empty() }

const otherProtocols = "protocols other than TCP, UDP and SCTP"

// String is "TCP 80, TCP 8000-8080", "all ports" or "no port".
func (s PortSet) String() string {
	if s.Empty() {
		return "no port"
	}
	rest := EveryPort().Minus(s)
	switch {
	case rest.Empty():
		return "all ports"
	case len(rest.Ranges) == 0: // which leaves the other protocols
		return "all of TCP, UDP and SCTP"
	case s.Others && len(rest.Ranges) < len(s.Ranges):
		return "all ports but " + names(rest.Ranges)
	case s.Others && len(s.Ranges) == 0:
		return otherProtocols
	case s.Others:
		return names(s.Ranges) + ", " + otherProtocols
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

// Minus is the set of ports that are in s and not in t.
func (s PortSet) Minus(t PortSet) PortSet {
	out := PortSet{Others: s.Others && !t.Others}
	for _, r := range s.Ranges {
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

// Plus is the set of ports that are in either.
func (s PortSet) Plus(t PortSet) PortSet {
	switch {
	case s.Empty():
		return t
	case t.Empty():
		return s
	}
	all := slices.Concat(s.Ranges, t.Ranges)
	slices.SortFunc(all, func(a, b policy.PortRange) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First))
	})
	out := PortSet{Others: s.Others || t.Others}
	for _, r := range all {
		if n := len(out.Ranges); n > 0 && out.Ranges[n-1].Protocol == r.Protocol && int(r.First) <= int(out.Ranges[n-1].Last)+1 {
			out.Ranges[n-1].Last = max(out.Ranges[n-1].Last, r.Last)
			continue
		}
		out.Ranges = append(out.Ranges, r)
	}
	return out
}

// add the ports of an interval.
func (s *PortSet) add(i interval) {
	if !i.protocol.HasPorts() {
		s.Others = true
		return
	}
	*s = s.Plus(PortSet{Ranges: []policy.PortRange{{Protocol: i.protocol, First: i.first, Last: i.last}}})
}

// interval is a range of ports that no rule tells apart, or all protocols without ports.
type interval struct {
	protocol    policy.Protocol
	first, last uint16
}

func (i interval) port() Port { return Port{i.protocol, i.first} }

// intervals between the ports that the rules of these pairs and the containers of their destinations name. A protocol without ports is
// allowed by rules without ports only.
func intervals(pairs ...[2]*place) []interval {
	out := []interval{{protocol: policy.ICMP}}
	for _, protocol := range portProtocols {
		starts := []int{1}
		for _, pair := range pairs {
			starts = pair[0].edges(starts, policy.Egress, protocol)
			starts = pair[1].edges(starts, policy.Ingress, protocol)
			if pair[1].pod != nil {
				for _, n := range policy.ContainerPorts(pair[1].pod) {
					starts = append(starts, int(n.Port), int(n.Port)+1)
				}
			}
		}
		slices.Sort(starts)
		starts = slices.DeleteFunc(slices.Compact(starts), func(n int) bool { return n < 1 || n > 65535 })
		for i, first := range starts {
			last := 65535
			if i+1 < len(starts) {
				last = starts[i+1] - 1
			}
			out = append(out, interval{protocol, uint16(first), uint16(last)})
		}
	}
	return out
}

// edges of the ports that a place's rules name.
func (p *place) edges(starts []int, d policy.Direction, protocol policy.Protocol) []int {
	for _, rules := range p.rules[d] {
		for _, r := range rules {
			for _, port := range r.numbered {
				if port.Protocol == protocol {
					starts = append(starts, int(port.First), int(port.Last)+1)
				}
			}
		}
	}
	return starts
}
