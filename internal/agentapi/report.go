package agentapi

import "slices"

// DeniedWithin is the period for which a NodeReport counts denied connections.
const DeniedWithin = "10m"

// NodeReport has the answers of an agent that `kubectl kidoban status` needs, in one message. Agents send it to the observer, when that
// asks.
type NodeReport struct {
	Node Node `json:"node"`
	// Pods without the rules that are in force for them, except those with domain names.
	Pods     []Pod    `json:"pods"`
	Policies []Policy `json:"policies"`
	// Names is nil if no rule in force has domain names.
	Names *NameList `json:"names,omitempty"`
	// Denied counts the connections that were denied within DeniedWithin and that the agent remembers.
	Denied int `json:"denied"`
}

// HasDomainNames reports whether a rule has a peer with domain names.
func (r *Rule) HasDomainNames() bool {
	return slices.ContainsFunc(r.Peers, func(p Peer) bool { return len(p.DomainNames) > 0 })
}

// HaveDomainNames reports whether a rule in force for one of these pods has domain names.
func HaveDomainNames(pods []Pod) bool {
	return slices.ContainsFunc(pods, func(p Pod) bool {
		return slices.ContainsFunc(p.Egress.Rules, func(r Rule) bool { return r.HasDomainNames() })
	})
}
