package model

import (
	"maps"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// NameChange is what a workload gains and loses at a DNS name, by the rules that have the name.
type NameChange struct {
	From   Workload `json:"from"`
	Name   string   `json:"name"`
	Gained PortSet  `json:"gained"`
	Lost   PortSet  `json:"lost"`
}

// namePorts are the ports on which rules accept the names of policies, by name in canonical form. Rules before them may deny networks: which
// addresses a name has is not known.
func (e *Evaluator) namePorts(pod *Pod) map[string]PortSet {
	var out map[string]PortSet
	for _, p := range e.ClusterPoliciesOf(pod) {
		if TierOf(p) != policy.TierAdmin {
			continue
		}
		for _, r := range ClusterRules(policy.Egress, p) {
			if r.Action != cnp.ClusterNetworkPolicyRuleActionAccept || r.Unreadable(policy.TierAdmin) != "" {
				continue
			}
			for _, peer := range r.Peers {
				for _, n := range peer.DomainNames {
					if name, err := policy.CanonicalDomainName(string(n)); err == nil {
						if out == nil {
							out = map[string]PortSet{}
						}
						out[name] = out[name].Plus(r.numberedPorts())
					}
				}
			}
		}
	}
	return e.applicationPorts(pod, out)
}

// applicationPorts adds to the ports by name those of the ApplicationNetworkPolicies that select a pod.
func (e *Evaluator) applicationPorts(pod *Pod, out map[string]PortSet) map[string]PortSet {
	policies := e.Policies(pod.Namespace)
	for i := range policies {
		np := &policies[i]
		if np.Kind != application.Kind || !netpol.Selects(policy.Egress, np, &pod.Pod) {
			continue
		}
		for j, r := range np.Spec.Egress {
			for _, name := range canonicalNames(application.DomainNames(np, j)) {
				if out == nil {
					out = map[string]PortSet{}
				}
				out[name] = out[name].Plus(numberedPortsOf(r.Ports))
			}
		}
	}
	return out
}

// numberedPortsOf are the ports of a NetworkPolicy's rule that have numbers, or all of them.
func numberedPortsOf(ports []networkingv1.NetworkPolicyPort) (out PortSet) {
	if len(ports) == 0 {
		return EveryPort()
	}
	for i := range ports {
		p := &ports[i]
		first, last := int32(1), int32(65535)
		switch {
		case p.Port != nil && p.Port.StrVal != "":
			continue
		case p.Port != nil:
			first, last = p.Port.IntVal, p.Port.IntVal
			if p.EndPort != nil {
				last = *p.EndPort
			}
		}
		out = out.Plus(PortSet{Ranges: []policy.PortRange{{Protocol: policy.ProtocolOf(p.Protocol), First: uint16(first), Last: uint16(last)}}})
	}
	return out
}

// canonicalNames are the names that DNS can mean.
func canonicalNames(texts []string) (out []string) {
	for _, text := range texts {
		if name, err := policy.CanonicalDomainName(text); err == nil {
			out = append(out, name)
		}
	}
	return out
}

// numberedPorts are the ports that a rule names by number, or all of them.
func (r *ClusterRule) numberedPorts() (out PortSet) {
	if len(r.Protocols) == 0 {
		return EveryPort()
	}
	for i := range r.Protocols {
		protocol, port := ProtocolAndPort(&r.Protocols[i])
		first, last := int32(1), int32(65535)
		switch {
		case protocol == 0: // a named port, which only pods have
			continue
		case port != nil && port.Range != nil:
			first, last = port.Range.Start, port.Range.End
		case port != nil:
			first, last = port.Number, port.Number
		}
		out = out.Plus(PortSet{Ranges: []policy.PortRange{{Protocol: protocol, First: uint16(first), Last: uint16(last)}}})
	}
	return out
}

// nameChanges compares what the workloads of both clusters may reach by name.
func nameChanges(before, after *Evaluator, workloads []Workload) (out []NameChange) {
	old, now := before.NamesByWorkload(), after.NamesByWorkload()
	for _, w := range workloads {
		names := maps.Clone(old[w])
		if names == nil {
			names = map[string]PortSet{}
		}
		maps.Copy(names, now[w])
		for _, name := range slices.SortedFunc(maps.Keys(names), strings.Compare) {
			c := NameChange{From: w, Name: name, Gained: now[w][name].Minus(old[w][name]), Lost: old[w][name].Minus(now[w][name])}
			if !c.Gained.Empty() || !c.Lost.Empty() {
				out = append(out, c)
			}
		}
	}
	return out
}

// NamesByWorkload are the DNS names that some pod of a workload may reach, with the ports.
func (e *Evaluator) NamesByWorkload() map[Workload]map[string]PortSet {
	out := map[Workload]map[string]PortSet{}
	isApplication := func(np networkingv1.NetworkPolicy) bool { return np.Kind == application.Kind }
	if !slices.ContainsFunc(e.cluster.ClusterPolicies, hasNames) && !slices.ContainsFunc(e.cluster.Policies, isApplication) {
		return out
	}
	for _, pod := range e.cluster.Distinct() {
		for name, ports := range e.namePorts(pod) {
			if out[pod.Workload] == nil {
				out[pod.Workload] = map[string]PortSet{}
			}
			out[pod.Workload][name] = out[pod.Workload][name].Plus(ports)
		}
	}
	return out
}

func hasNames(p cnp.ClusterNetworkPolicy) bool {
	return slices.ContainsFunc(p.Spec.Egress, func(r cnp.ClusterNetworkPolicyEgressRule) bool {
		return slices.ContainsFunc(r.To, func(t cnp.ClusterNetworkPolicyEgressPeer) bool { return len(t.DomainNames) > 0 })
	})
}

// PolicyNames are the DNS names that rules of policies have, in ascending order and canonical form. For a wildcard it is a name below it.
func (c *Cluster) PolicyNames() []string {
	names := map[string]bool{}
	add := func(text string) {
		for _, name := range canonicalNames([]string{text}) {
			if base, ok := strings.CutPrefix(name, "*."); ok {
				name = "any." + base
			}
			names[name] = true
		}
	}
	for i := range c.ClusterPolicies {
		for _, r := range c.ClusterPolicies[i].Spec.Egress {
			for _, peer := range r.To {
				for _, n := range peer.DomainNames {
					add(string(n))
				}
			}
		}
	}
	for i := range c.Policies {
		for j := range c.Policies[i].Spec.Egress {
			for _, n := range application.DomainNames(&c.Policies[i], j) {
				add(n)
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}
