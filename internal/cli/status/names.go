package status

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// Resolver is a DNS server whose answers count for the domain names of policies.
type Resolver struct {
	Address netip.AddrPort `json:"address"`
	// Nodes is how many nodes trust it, of those with pods that have names in their policies.
	Nodes int `json:"nodes"`
}

// NameOnNodes is a domain name of a policy.
type NameOnNodes struct {
	Name string `json:"name"`
	// Nodes have pods that the policy selects, and Learned of them have an address for the name.
	Nodes   int `json:"nodes"`
	Learned int `json:"learned"`
}

// domainNames adds which resolvers the nodes trust, and on how many nodes the names of policies have addresses.
func (s *Status) domainNames(reports map[string]*report) {
	nodes := map[netip.AddrPort]int{}
	counts := map[agentapi.PolicyRef]map[string]*NameOnNodes{}
	for _, node := range slices.Sorted(maps.Keys(reports)) {
		r := reports[node]
		if r.names == nil {
			continue
		}
		if len(r.names.Resolvers) == 0 {
			s.attend("node %s: policies have domain names, and the agent trusts no DNS resolver: nothing is allowed by name", node)
		}
		if n := r.names.BehindBridge; n > 0 {
			s.attend("node %s: nothing was learned from %d DNS answers, because they came through a bridge; pods that need domain names should ask a resolver on the node itself or on another node", node, n)
		}
		for _, a := range r.names.Resolvers {
			nodes[a]++
		}
		learned := map[string]bool{}
		for _, n := range r.names.Names {
			learned[n.Pattern] = learned[n.Pattern] || len(n.Addresses) > 0
		}
		for policy, names := range namesOf(r.pods) {
			for name := range names {
				if counts[policy] == nil {
					counts[policy] = map[string]*NameOnNodes{}
				}
				if counts[policy][name] == nil {
					counts[policy][name] = &NameOnNodes{Name: name}
				}
				if counts[policy][name].Nodes++; learned[name] {
					counts[policy][name].Learned++
				}
			}
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(nodes), netip.AddrPort.Compare) {
		s.Resolvers = append(s.Resolvers, Resolver{a, nodes[a]})
	}
	for i := range s.Policies {
		p := &s.Policies[i]
		names := counts[agentapi.PolicyRef{Kind: p.kind(), Namespace: p.Namespace, Name: p.Name}]
		for _, name := range slices.Sorted(maps.Keys(names)) {
			p.Names = append(p.Names, *names[name])
		}
	}
}

// kind is the policy's, also of a NetworkPolicy.
func (p *Policy) kind() string {
	if p.Kind != "" {
		return p.Kind
	}
	return agentapi.KindNetworkPolicy
}

// namesOf are the names in the pods' rules, by policy.
func namesOf(pods []agentapi.Pod) map[agentapi.PolicyRef]map[string]bool {
	out := map[agentapi.PolicyRef]map[string]bool{}
	for i := range pods {
		for _, r := range pods[i].Egress.Rules {
			for _, peer := range r.Peers {
				for _, name := range peer.DomainNames {
					if out[r.Policy.PolicyRef] == nil {
						out[r.Policy.PolicyRef] = map[string]bool{}
					}
					out[r.Policy.PolicyRef][name] = true
				}
			}
		}
	}
	return out
}
