package agentapi

import (
	"net/netip"
	"slices"
	"time"
)

// Node is the answer of /v1/node: which agent this is, and how it does. The numbers count from its start and are those of its metrics
// (docs/metrics.md).
type Node struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	// Drift is how many entries of BPF maps were not as they should be, and were put right.
	Drift uint64 `json:"drift"`
	// Failures is how many changes could not be written; they are tried again.
	Failures uint64 `json:"failures"`
	// ClosedAddresses are those of pods that are closed now, because their policies could not be written.
	ClosedAddresses uint64 `json:"closedAddresses"`
	// UnlistedPackets are those that no line of the flow log counts.
	UnlistedPackets uint64 `json:"unlistedPackets"`
	// Maps of the kernel, by name.
	Maps []MapUse `json:"maps"`
}

// MapUse is how full a BPF map is.
type MapUse struct {
	Map     string `json:"map"`
	Entries uint64 `json:"entries"`
	Max     uint64 `json:"max"`
}

// PodList is the answer of /v1/pods: the pods of the node that have addresses of their own, ordered by namespace and name.
type PodList struct {
	Node string `json:"node"`
	Pods []Pod  `json:"pods"`
}

// Pod is a pod of the node and what is in force for it.
type Pod struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid"`
	Workload  *Workload    `json:"workload,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	// Mode is the node's enforcing mode, or audit: what would be refused is logged and passes.
	Mode string `json:"mode"`
	// State is InForce when the kernel judges the pod by what is said here, else Pending.
	State   string    `json:"state"`
	Ingress PodPolicy `json:"ingress"`
	Egress  PodPolicy `json:"egress"`
}

// Modes of a Pod.
const (
	ModeStandard = "standard"
	ModeGuarded  = "guarded" // refused until it is known
	ModeStrict   = "strict"  // and closed where no policy isolates it
	ModeAudit    = "audit"
)

// States of a Pod or a Policy.
const (
	StateInForce = "InForce"
	StatePending = "Pending"
)

// PodPolicy is what is in force for a pod in one direction.
type PodPolicy struct {
	// Isolated: what no rule allows is refused.
	Isolated bool `json:"isolated"`
	// Policies that isolate the pod in this direction, in the order of evaluation.
	Policies []PolicyRef `json:"policies,omitempty"`
	// Rules of these policies, in the order of evaluation, with the pod's named ports resolved.
	Rules []Rule `json:"rules,omitempty"`
}

// Rule is one normalised rule.
type Rule struct {
	Tier   string `json:"tier"`
	Action string `json:"action"` // Allow, Deny or Pass
	// Policy and the indexes of its own rules that this one comes from.
	Policy RuleRef `json:"policy"`
	// Peers; none: everyone.
	Peers []Peer `json:"peers,omitempty"`
	// Ports; none: every port of every protocol, or with NoPorts none at all: a named port that the pod does not have.
	Ports   []Port `json:"ports,omitempty"`
	NoPorts bool   `json:"noPorts,omitempty"`
}

// Peer is a group, or a CIDR less some parts of it.
type Peer struct {
	// Group is namespace/name of a group; its PolicyEndpointSlices have the selectors that it stands for.
	Group string `json:"group,omitempty"`
	// Addresses is how many the agent knows in the group.
	Addresses int            `json:"addresses,omitempty"`
	CIDR      netip.Prefix   `json:"cidr,omitzero"`
	Except    []netip.Prefix `json:"except,omitempty"`
}

// Port is a range of one protocol's ports, both ends included; 0 to 65535 is the whole protocol.
type Port struct {
	Protocol string `json:"protocol"`
	First    uint16 `json:"first"`
	Last     uint16 `json:"last"`
}

// PolicyList is the answer of /v1/policies: the policies of every namespace that the node has pods in, ordered by namespace and name.
type PolicyList struct {
	Node     string   `json:"node"`
	Policies []Policy `json:"policies"`
}

// FindPolicy is the policy of this name among those of a node, or nil.
func FindPolicy(policies []Policy, ref PolicyRef) *Policy {
	k := slices.IndexFunc(policies, func(p Policy) bool { return p.PolicyRef == ref })
	if k < 0 {
		return nil
	}
	return &policies[k]
}

// Policy is how far a policy is in force on the node.
type Policy struct {
	PolicyRef
	// PolicyEndpoint is the name of the object that carries the policy, in the policy's namespace.
	PolicyEndpoint string `json:"policyEndpoint"`
	// Pods of the node that the version in force selects.
	Pods int `json:"pods"`
	// State is InForce when the newest version that the agent has seen is what the kernel judges by.
	State string `json:"state"`
	// Newest is the newest version that the agent has seen.
	Newest Version `json:"newest"`
	// Realised is the version that the kernel judges by; none: the policy is not in force at all.
	Realised *Realised `json:"realised,omitempty"`
	// WaitingFor are the groups (namespace/name) that Newest waits for because they are not whole yet.
	WaitingFor []string `json:"waitingFor,omitempty"`
}

// Version is one version of a policy, by the policy's own metadata.
type Version struct {
	UID        string `json:"uid"`
	Generation int64  `json:"generation"`
}

// Realised is a version that is in force.
type Realised struct {
	Version
	// Since it was written to the kernel.
	Since time.Time `json:"since"`
	// LatencySeconds is the time from the moment the agent saw it until then.
	LatencySeconds float64 `json:"latencySeconds"`
}
