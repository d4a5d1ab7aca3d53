package agentapi

import (
	"net/netip"
	"slices"
	"time"
)

// Node is the answer of /v1/node: the agent's version and its most important metrics (docs/metrics.md), which count from its start.
type Node struct {
	Node    string `json:"node"`
	Version string `json:"version"`
	// Drift is the number of entries of BPF maps that differed from the policies and were repaired.
	Drift uint64 `json:"drift"`
	// Failures is the number of changes that could not be written; the agent retries.
	Failures uint64 `json:"failures"`
	// FailClosedAddresses are those of pods that are denied all traffic now, because their policies could not be written.
	FailClosedAddresses uint64 `json:"failClosedAddresses"`
	// UnlistedPackets are those that no line of the flow log counts.
	UnlistedPackets uint64 `json:"unlistedPackets"`
	// BootGap is the container runtime ("containerd 2.1.4", or "none" without NRI) if the agent lets no pod start before policies are in force,
	// and this runtime cannot be made to wait for the agent after the node's boot.
	BootGap string `json:"bootGap,omitempty"`
	// Observer is how flow records reach the observer; nil: the agent pushes none.
	Observer *ObserverUse `json:"observer,omitempty"`
	// Maps of the kernel, by name.
	Maps []MapUse `json:"maps"`
}

// ObserverUse is how an agent's flow records reach the observer.
type ObserverUse struct {
	// Streams are the replicas that the agent is connected to.
	Streams uint64 `json:"streams"`
	// Lost are records that some replica never gets, and packets that are in no record.
	Lost uint64 `json:"lost"`
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

// Pod is a pod of the node and the policies that are in force for it.
type Pod struct {
	Namespace string       `json:"namespace"`
	Name      string       `json:"name"`
	UID       string       `json:"uid"`
	Workload  *Workload    `json:"workload,omitempty"`
	Addresses []netip.Addr `json:"addresses"`
	// Unseen are interfaces of the pod whose traffic the agent does not see: policies do not apply to it.
	Unseen []Interface `json:"unseen,omitempty"`
	// Mode is the node's enforcing mode, or audit: denials are logged and the packets pass.
	Mode string `json:"mode"`
	// State is InForce if the kernel enforces exactly these rules, else Pending.
	State   string    `json:"state"`
	Ingress PodPolicy `json:"ingress"`
	Egress  PodPolicy `json:"egress"`
}

// Modes of a Pod.
const (
	ModeStandard = "standard"
	ModeGuarded  = "guarded" // denied all traffic until the pod is known
	ModeStrict   = "strict"  // and isolated in every direction
	ModeAudit    = "audit"
)

// States of a Pod or a Policy.
const (
	StateInForce = "InForce"
	StatePending = "Pending"
	// StateIsolating is that of a Policy that costs more than there is for it: it isolates its pods and allows nothing.
	StateIsolating = "Isolating"
)

// Interface of a pod.
type Interface struct {
	Name string `json:"name"`
	// Kind is as `ip link` shows it, such as macvlan or ipvlan; a physical device is "device", and a port of a bridge, whose Name is that on
	// the node, is "bridge port".
	Kind string `json:"kind"`
}

// PodPolicy is what is in force for a pod in one direction.
type PodPolicy struct {
	// Isolated: traffic that no rule allows is denied.
	Isolated bool `json:"isolated"`
	// Policies that isolate the pod in this direction, in the order of evaluation.
	Policies []PolicyRef `json:"policies,omitempty"`
	// Rules of these policies, in the order of evaluation, with the pod's named ports resolved.
	Rules []Rule `json:"rules,omitempty"`
	// Audited policies that select the pod in this direction: they decide about no packet.
	Audited []PolicyRef `json:"audited,omitempty"`
}

// Rule is one normalised rule.
type Rule struct {
	Tier   string `json:"tier"`
	Action string `json:"action"` // Allow, Deny or Pass
	// Policy and the indexes of its own rules that this one comes from.
	Policy RuleRef `json:"policy"`
	// Peers; none: everyone.
	Peers []Peer `json:"peers,omitempty"`
	// Ports; none: every port of every protocol or, with NoPorts, no port at all: a named port that the pod does not have.
	Ports   []Port `json:"ports,omitempty"`
	NoPorts bool   `json:"noPorts,omitempty"`
}

// Peer is a group, or a CIDR less some parts of it.
type Peer struct {
	// Group is namespace/name of a group; its PolicyEndpointSlices name the selectors that it stands for.
	Group string `json:"group,omitempty"`
	// Addresses is the number of addresses that the agent has of the group.
	Addresses int            `json:"addresses,omitempty"`
	CIDR      netip.Prefix   `json:"cidr,omitzero"`
	Except    []netip.Prefix `json:"except,omitempty"`
	// DomainNames are DNS names and wildcards, whose addresses the node learns from trusted resolvers.
	DomainNames []string `json:"domainNames,omitempty"`
}

// Port is a range of one protocol's ports, both ends included; 0 to 65535 is every port of the protocol.
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
	// State is InForce if the kernel enforces the newest version that the agent has seen.
	State string `json:"state"`
	// Audited: the version in force decides about no packet. What it would decide is recorded.
	Audited bool `json:"audited,omitempty"`
	// Live are the connections that enforcing the policy would cut; nil: it is not audited, or they could not be read.
	Live *LiveDenials `json:"live,omitempty"`
	// Newest is the newest version that the agent has seen.
	Newest Version `json:"newest"`
	// Realised is the version that the kernel enforces; none: no version is in force.
	Realised *Realised `json:"realised,omitempty"`
	// WaitingFor are the groups (namespace/name) that Newest waits for because they are not complete yet.
	WaitingFor []string `json:"waitingFor,omitempty"`
	// Problem is what the policy needs more of than there is; its State is Isolating then, unless it is audited.
	Problem string `json:"problem,omitempty"`
}

// LiveDenials are live connections of a node's pods that would be cut if all audited policies were enforced, and that one of them denies.
type LiveDenials struct {
	Connections int `json:"connections"`
	// Unnamed of them lead to addresses of which the node has learned no name that the policies allow. Such a connection is allowed by its
	// name only after the pod resolves the name again.
	Unnamed int `json:"unnamed,omitempty"`
	// Examples of them, ten at most.
	Examples []LiveConnection `json:"examples,omitempty"`
}

// LiveConnection is a connection of a pod.
type LiveConnection struct {
	Pod string `json:"pod"` // namespace/name
	// Direction is Egress if the pod opened the connection, otherwise Ingress.
	Direction string     `json:"direction"`
	Peer      netip.Addr `json:"peer"`
	PeerPod   string     `json:"peerPod,omitempty"` // namespace/name, of a pod of the same node
	Protocol  string     `json:"protocol"`
	Port      uint16     `json:"port"`
	Unnamed   bool       `json:"unnamed,omitempty"`
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
