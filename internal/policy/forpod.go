package policy

import "slices"

// NamedPort is a container port with a name.
type NamedPort struct {
	Protocol Protocol
	Name     string
	Port     uint16
}

// ForPod returns the policy with every named port of its ingress rules replaced by the numbers that a pod has for it. A name
// that the pod does not have matches nothing. A policy without named ports is returned as it is, so that pods with the same
// policies can share its compiled form.
func (p *Policy) ForPod(named []NamedPort) *Policy {
	if !p.HasNamedPorts() {
		return p
	}
	q := *p
	q.Rules[Ingress] = slices.Clone(p.Rules[Ingress])
	for i := range q.Rules[Ingress] {
		r := &q.Rules[Ingress][i]
		r.Ports = resolve(r.Ports, named)
	}
	return &q
}

// HasNamedPorts reports whether an ingress rule has a port whose number depends on the selected pod.
func (p *Policy) HasNamedPorts() bool {
	return slices.ContainsFunc(p.Rules[Ingress], func(r Rule) bool {
		return slices.ContainsFunc(r.Ports, func(pr PortRange) bool { return pr.Name != "" })
	})
}

func resolve(ports []PortRange, named []NamedPort) []PortRange {
	out := make([]PortRange, 0, len(ports))
	for _, pr := range ports {
		if pr.Name == "" {
			out = append(out, pr)
			continue
		}
		for _, n := range named {
			if n.Name == pr.Name && n.Protocol == pr.Protocol {
				out = append(out, PortRange{Protocol: n.Protocol, First: n.Port, Last: n.Port})
			}
		}
	}
	return out
}
