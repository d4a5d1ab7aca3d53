package policy

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
)

// Tier is a step of evaluation. Admin decides about a flow first. What it leaves undecided goes to NetworkPolicy if a
// NetworkPolicy isolates the pod, and to Baseline otherwise.
type Tier uint8

// The tiers in the order of evaluation. See https://network-policy-api.sigs.k8s.io.
const (
	TierAdmin Tier = iota
	TierNetworkPolicy
	TierBaseline
)

func (t Tier) String() string {
	return [...]string{"Admin", "NetworkPolicy", "Baseline"}[t]
}

// Direction is the direction of a flow as the selected pod sees it.
type Direction uint8

// The directions. They index arrays of length 2.
const (
	Ingress Direction = iota
	Egress
)

// Directions contains both directions, to range over.
var Directions = [...]Direction{Ingress, Egress}

func (d Direction) String() string {
	return [...]string{"Ingress", "Egress"}[d]
}

// Action is what a rule does with flows that it matches.
type Action uint8

// The actions. Pass leaves the decision to the next tier; it has no meaning outside the Admin tier. Rules of the
// NetworkPolicy tier can only Allow. The API's action Accept is Allow here.
const (
	Allow Action = iota
	Deny
	Pass
)

func (a Action) String() string {
	return [...]string{"Allow", "Deny", "Pass"}[a]
}

// Protocol is an IP protocol number (https://www.iana.org/assignments/protocol-numbers).
type Protocol uint8

// The protocols that occur in policies or logs.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	}
	return fmt.Sprintf("%d", uint8(p))
}

// ParseProtocol reads a protocol as String writes it: a name or a number.
func ParseProtocol(text string) (_ Protocol, ok bool) {
	for _, p := range [...]Protocol{ICMP, TCP, UDP, ICMPv6, SCTP} {
		if text == p.String() {
			return p, true
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	return Protocol(n), err == nil
}

// HasPorts reports whether flows of this protocol have ports, so that rules can distinguish them by port.
func (p Protocol) HasPorts() bool { return p == TCP || p == UDP || p == SCTP }

// PortRange is a range of one protocol's ports, both ends included. First 0 with Last 65535 is every port.
type PortRange struct {
	Protocol    Protocol
	First, Last uint16
	// Name is the name of a container port, whose number depends on the selected pod (see Policy.ForPod). First and Last are
	// not used then.
	Name string
}

// AllPorts returns the range of every port of protocol p.
func AllPorts(p Protocol) PortRange { return PortRange{Protocol: p, Last: 65535} }

// GroupKey names a group of addresses, which are in PolicyEndpointSlices of the namespace.
type GroupKey struct{ Namespace, Name string }

func (k GroupKey) String() string { return k.Namespace + "/" + k.Name }

// Peer is a group, or, if CIDR is valid, a CIDR without its excepts, or, if there are any, DNS names.
type Peer struct {
	Group  GroupKey
	CIDR   netip.Prefix
	Except []netip.Prefix
	// DomainNames are names and wildcards in canonical form (see CanonicalDomainName). The peer has the addresses that the node has seen
	// trusted resolvers give for them. Only egress rules have such peers.
	DomainNames []string
}

// IsGroup reports whether the peer is a group.
func (p *Peer) IsGroup() bool { return !p.CIDR.IsValid() && len(p.DomainNames) == 0 }

// Rule is one normalised rule.
type Rule struct {
	// Name of the policy's rule; empty if it has none.
	Name   string
	Action Action
	// Origin contains the indexes of the policy's own rules from which this one is made, ascending.
	Origin []int32
	// Everyone makes the rule match every address; Peers is empty then.
	Everyone bool
	Peers    Peers
	// EveryPort makes the rule match every port of every protocol, also protocols without ports; Ports is empty then.
	EveryPort bool
	Ports     []PortRange
}

// ID names a policy for people. UID and Generation identify one version of it.
type ID struct {
	Kind, Namespace, Name string
	UID                   string
	Generation            int64
}

// String returns "Kind namespace/name", or "Kind name" for a policy without a namespace.
func (id ID) String() string {
	if id.Namespace == "" {
		return id.Kind + " " + id.Name
	}
	return id.Kind + " " + id.Namespace + "/" + id.Name
}

// Policy is one policy as agents enforce it: its rules, without the selector of its pods.
type Policy struct {
	ID ID
	// Created is when its PolicyEndpoint was created, in Unix time. It decides what fits into a node's maps when not all does.
	Created  int64
	Tier     Tier
	Priority int32
	// Audited policies decide about no packet. What they would decide is recorded beside what the enforced policies decide.
	Audited bool
	// Isolates, by Direction: in the NetworkPolicy tier, whether the policy isolates the selected pods. In the other tiers,
	// whether it has rules in that direction.
	Isolates [2]bool
	// Rules, by Direction, in the policy's order.
	Rules [2][]Rule
}

// HasNames reports whether a rule has a peer with domain names.
func (p *Policy) HasNames() bool {
	return slices.ContainsFunc(p.Rules[Egress], func(r Rule) bool {
		for peer := range r.Peers.All() {
			if len(peer.DomainNames) > 0 {
				return true
			}
		}
		return false
	})
}

// Compare orders policies as they are evaluated: by tier, then by priority. The name decides among the rest, so that logs
// always quote the same rule of several that match.
func Compare(a, b *Policy) int {
	return cmp.Or(
		cmp.Compare(a.Tier, b.Tier),
		cmp.Compare(a.Priority, b.Priority),
		cmp.Compare(a.ID.Namespace, b.ID.Namespace),
		cmp.Compare(a.ID.Name, b.ID.Name),
		cmp.Compare(a.ID.Kind, b.ID.Kind),
		cmp.Compare(a.ID.UID, b.ID.UID),
	)
}
