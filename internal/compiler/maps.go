package compiler

import (
	"net/netip"

	"github.com/kidoban/kidoban/internal/policy"
)

// The IDs are small integers given out by one Compiler, from 1, and never given out again by it: a packet that has read
// an entry of the maps never finds another thing under the ID that it read.
type (
	// SetID stands for what the policies on a pod allow in one direction. 0: the pod is not isolated.
	SetID uint32
	// ClassID stands for the set of groups and networks that an address belongs to. 0: to none.
	ClassID uint32
	// PortListID stands for a list of ports with a decision each. 0: none, the row's own decision goes for every port.
	PortListID uint32
	// RuleID stands for one rule of one policy in one direction, or 0 for the default of an isolated pod.
	RuleID uint32
)

// PodFlags modify how a pod is decided.
type PodFlags uint32

const (
	// Audit: refusals are counted and logged, and the packet passes.
	Audit PodFlags = 1 << iota
)

// Pod is what the maps hold about one address of a pod of this node.
type Pod struct {
	// Sets by policy.Direction.
	Sets [2]SetID
	// AuditSets by policy.Direction are those that would be in Sets if audited policies were enforced. 0: no audited policy has a say
	// in the direction.
	AuditSets [2]SetID
	Flags     PodFlags
	// IfIndex of the first of the pod's own interfaces on the host; 0 where none is known, or it is shared.
	IfIndex uint32
}

// InterfaceKind is what is known of an interface of this node.
type InterfaceKind uint8

// The kinds. An interface that is not in the maps may be anything.
const (
	// PodInterface is one pod's alone: a packet out of it must have one of that pod's addresses.
	PodInterface InterfaceKind = 1 + iota
	// Uplink leads out of the node, also where it looks like a pod's.
	Uplink
)

// Interface is what the maps hold about an interface of this node.
type Interface struct {
	Kind InterfaceKind
	// Flags of the pod.
	Flags PodFlags
	// Pod is the IfIndex of the entries of its pod.
	Pod uint32
}

// RowKey asks: what does this set decide about addresses of this class?
type RowKey struct {
	Set   SetID
	Class ClassID
}

// Decision is what the maps decide about a packet, and by which rule.
type Decision struct {
	Action policy.Action
	Tier   policy.Tier
	Rule   RuleID
	// Names counts the set's rules with names in the Admin and in the NetworkPolicy tier. Of a row about a class it is how many come before
	// this decision, of a row about a pattern how many come before the rule.
	Names [2]uint8
}

// Row answers a RowKey: the decision of PortList's longest match for protocol and port or, without one, Default.
// A RowKey without a Row has the answer of {Set, Class: 0}, and where that has none the answer is a Deny of rule 0.
type Row struct {
	PortList PortListID
	Default  Decision
}

// PortKey is a prefix of a port list's ports: Bits is how many of Port's 16 bits count, the most significant first.
type PortKey struct {
	PortList PortListID
	Protocol policy.Protocol
	Port     uint16
	Bits     uint8
}

// Maps is what a node's dataplane looks flows up in, as plain data. A flow's new packet is decided twice, for the
// source's Egress and for the destination's Ingress; both must accept:
//
// A pod's traffic to its own node, and to itself through a Service, is decided by the pod's entry under OwnAddress instead.
//
//	Interfaces[the packet's] is a pod's         and Pods[source].IfIndex is not its Pod: spoofed, deny
//	pod := Pods[own address]                    no entry: accept;  pod.Sets[direction] == 0: accept
//	class := Addresses[peer address]            no entry: the longest match in Networks;  none: class 0
//	row := Rows[{set, class}]                   no entry: Rows[{set, 0}];  none: Deny, rule 0
//	decision := longest match in Ports[{row.PortList, protocol, port}]   none: row.Default
//
// Where Names of the decision is not 0, a rule with names may come before it. The dataplane learns from the answers of Resolvers which patterns
// an address belongs to: those of the longest match in Domains for the name that was asked for. Among the rows {set, NameClass(pattern, tier)} of
// these patterns, the one that allows with the lowest Names[tier] decides, if that is lower than the decision's, and Admin comes first.
//
// Where pod.AuditSets[direction] is not 0, that set's decision is found in the same way and reported if it has another action.
type Maps struct {
	Pods      map[netip.Addr]Pod
	Addresses map[netip.Addr]ClassID
	Networks  map[netip.Prefix]ClassID // masked; each family has its own trie
	Rows      map[RowKey]Row
	Ports     map[PortKey]Decision
	// Interfaces by index.
	Interfaces map[uint32]Interface
	// Domains by their names: "example.com", or "*.example.com" for all names below it.
	Domains map[string]Domain
	// Resolvers are believed. Port 0 stands for every port.
	Resolvers map[netip.AddrPort]struct{}
}

// Write puts an entry into a map, or takes it out where Delete is true (Value is the zero value then).
type Write[K comparable, V any] struct {
	Key    K
	Value  V
	Delete bool
}

// Changes are the writes that take the maps from one state to the next. The fields stand in the order in which the writes
// are made; dataplane.Changes defines that order and the reasons for it.
type Changes struct {
	// GoneInterfaces include those that come back, with other pods, in Interfaces.
	GoneInterfaces []uint32

	Ports     []Write[PortKey, Decision]
	Rows      []Write[RowKey, Row]
	Addresses []Write[netip.Addr, ClassID]
	Networks  []Write[netip.Prefix, ClassID]
	// GoneAddresses have no entry of their own any more.
	GoneAddresses []netip.Addr
	Pods          []Write[netip.Addr, Pod]
	Interfaces    []Write[uint32, Interface]
	Domains       []Write[string, Domain]
	Resolvers     []Write[netip.AddrPort, struct{}]
	// StaleRows and StalePorts are what nothing has referred to since before the last Collect.
	StaleRows  []RowKey
	StalePorts []PortKey

	// Narrowed is what these changes may have taken from flows that were allowed: no write, but what to look for in conntrack.
	Narrowed Narrowed
}

// Narrowed names the flows that may have lost what allowed them.
type Narrowed struct {
	// Addresses are those of pods under other policies and of peers that left a group: the flows to and from them.
	Addresses []netip.Addr
	// Everything: a network changed, and any flow may be concerned.
	Everything bool
}

// Len is the number of writes.
func (c *Changes) Len() int {
	return len(c.GoneInterfaces) + len(c.Interfaces) + len(c.Ports) + len(c.Rows) + len(c.Addresses) +
		len(c.Networks) + len(c.GoneAddresses) + len(c.Pods) + len(c.StaleRows) + len(c.StalePorts) +
		len(c.Domains) + len(c.Resolvers)
}
