package resolver

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// portSet is the union of the ports of one or more rules.
type portSet struct {
	// everything: all ports of all protocols, and protocols without ports.
	everything bool
	// ranges are ranges of numbers, and names of container ports.
	ranges []policy.PortRange
}

// parsePort reads one entry of a policy's ports.
func parsePort(p *networkingv1.NetworkPolicyPort) (policy.PortRange, error) {
	out := policy.AllPorts(policy.TCP)
	if p.Protocol != nil {
		var ok bool
		if out.Protocol, ok = protocolNumber(*p.Protocol); !ok {
			return out, fmt.Errorf("protocol %q is not one of TCP, UDP and SCTP", *p.Protocol)
		}
	}
	switch {
	case p.Port == nil && p.EndPort != nil:
		return out, fmt.Errorf("endPort %d needs a port", *p.EndPort)
	case p.Port == nil:
		return out, nil
	case p.Port.Type == intstr.String && p.EndPort != nil:
		return out, fmt.Errorf("endPort %d needs a numeric port, not %q", *p.EndPort, p.Port.StrVal)
	case p.Port.Type == intstr.String:
		if wrong := validation.IsValidPortName(p.Port.StrVal); len(wrong) > 0 {
			return out, fmt.Errorf("%q is not a valid port name: %s", p.Port.StrVal, strings.Join(wrong, "; "))
		}
		return policy.PortRange{Protocol: out.Protocol, Name: p.Port.StrVal}, nil
	}
	first, last := p.Port.IntVal, p.Port.IntVal
	if p.EndPort != nil {
		last = *p.EndPort
	}
	if first < 1 || last > 65535 || first > last {
		return out, fmt.Errorf("port %d to %d is not a range within 1 to 65535", first, last)
	}
	out.First, out.Last = uint16(first), uint16(last)
	return out, nil
}

func (s *portSet) add(t portSet) {
	s.everything = s.everything || t.everything
	s.ranges = append(s.ranges, t.ranges...)
}

// canonical sorts the ranges and makes them disjoint. Names come last; those of a protocol whose ports are
// all in the set are left out.
func (s *portSet) canonical() {
	if s.everything {
		s.ranges = nil
		return
	}
	slices.SortFunc(s.ranges, func(a, b policy.PortRange) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
	var out []policy.PortRange
	allPorts := map[policy.Protocol]bool{}
	for _, r := range s.ranges {
		if r.Name != "" {
			if !allPorts[r.Protocol] && (len(out) == 0 || out[len(out)-1] != r) {
				out = append(out, r)
			}
			continue
		}
		allPorts[r.Protocol] = allPorts[r.Protocol] || r == policy.AllPorts(r.Protocol)
		if n := len(out) - 1; n >= 0 && out[n].Protocol == r.Protocol && int(r.First) <= int(out[n].Last)+1 {
			out[n].Last = max(out[n].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	s.ranges = out
}

// api returns canonical ports in the form of the API, which is an empty list for everything.
func (s *portSet) api() []v1alpha1.Port {
	var out []v1alpha1.Port
	for _, r := range s.ranges {
		p := v1alpha1.Port{Protocol: v1alpha1.Protocol(r.Protocol.String()), Name: r.Name}
		if r.Name == "" && r != policy.AllPorts(r.Protocol) {
			p.Port = int32(r.First)
			if r.Last > r.First {
				p.EndPort = int32(r.Last)
			}
		}
		out = append(out, p)
	}
	return out
}
