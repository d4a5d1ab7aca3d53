package agentapi

import (
	"net/netip"
	"time"
)

// Event is one line of the flow log as JSON: a verdict about one direction of packets that open a flow.
// docs/flow-log.schema.json is its JSON Schema.
type Event struct {
	// Time of the packet or, with Count above 1, of the last one.
	Time time.Time `json:"time"`
	// Node on which the packets were decided.
	Node string `json:"node"`
	// Direction is Ingress if the destination's policies decided, Egress if the source's did.
	Direction string `json:"direction"`
	Verdict   string `json:"verdict"`
	Reason    string `json:"reason"`
	// Tier that decided; empty where no policy did.
	Tier string `json:"tier,omitempty"`
	// Policy and rule that decided. None: a default.
	Policy *RuleRef `json:"policy,omitempty"`
	// NameMiss is why no rule with domain names allowed the packets, if the node remembers an answer of DNS that led to the destination.
	NameMiss *NameMiss `json:"nameMiss,omitempty"`
	// IsolatedBy are the policies that isolate the pod in this direction, for a default deny: at most MaxIsolatedBy of them.
	IsolatedBy []PolicyRef `json:"isolatedBy,omitempty"`
	// Audited are the audited policies that select the pod in this direction, at most MaxIsolatedBy of them, if Verdict is what would
	// become of the packets if they were enforced. None: the pod is in audit mode.
	Audited []PolicyRef `json:"audited,omitempty"`
	// Source and Destination as decided: after DNAT, before SNAT. In the line of a pod's unlisted packets (Unlisted) one of them is
	// that pod and the other is empty; both are where not even addresses could be read.
	Source      Endpoint `json:"source"`
	Destination Endpoint `json:"destination"`
	// OriginalDestination is where the sender sent it, such as a Service's address, if that is another than Destination.
	OriginalDestination *Endpoint `json:"originalDestination,omitempty"`
	// Protocol is TCP, UDP, SCTP, ICMP, ICMPv6 or a number (https://www.iana.org/assignments/protocol-numbers).
	Protocol string `json:"protocol,omitempty"`
	// Count is the number of packets that the line stands for, Bytes their length with IP headers.
	Count uint64 `json:"count"`
	Bytes uint64 `json:"bytes"`
	// First is the time of the first of them, where Count is above 1.
	First *time.Time `json:"first,omitempty"`
	// Unlisted: the line sums up packets of one pod that had too many different flows to have a line each.
	Unlisted bool `json:"unlisted,omitempty"`
}

// StreamedEvent is a line of the API's answer to PathEvents.
type StreamedEvent struct {
	Event
	// Missed is how many events before this one are lost, because the reader was slower than the ring of recent events.
	Missed uint64 `json:"missed,omitempty"`
}

// MaxIsolatedBy is the most policies that Event.IsolatedBy and Event.Audited name.
const MaxIsolatedBy = 10

// Verdicts of an Event.
const (
	VerdictAccept    = "ACCEPT"
	VerdictDeny      = "DENY"
	VerdictAuditDeny = "AUDIT-DENY" // would have been denied, and was not: the pod is in audit mode, or policies are audited
	// VerdictAuditAllow: would have been allowed if audited policies were enforced, and was not. The packets have another Event with
	// the verdict that they got.
	VerdictAuditAllow = "AUDIT-ALLOW"
)

// Reasons of an Event.
const (
	ReasonPolicy      = "policy"       // a rule of a policy decided
	ReasonDefaultDeny = "default-deny" // the pod is isolated and no rule allows it
	// ReasonDefaultAllow: ClusterNetworkPolicies select the pod, none of their rules matches, and no NetworkPolicy isolates the pod.
	ReasonDefaultAllow = "default-allow"
	ReasonUnparsable   = "unparsable" // the packet cannot be read, and an end of it is isolated
	ReasonInvalid      = "invalid"    // no honest packet looks like this
	ReasonRevoked      = "revoked"    // of a flow that was cut, because no policy allows it any more
	ReasonSpoofed      = "spoofed"    // out of a pod's own interface, with an address that is not the pod's
	ReasonUnknown      = "unknown"    // an address behind a workload's interface that is no known pod's (enforcing mode guarded or strict)
	// ReasonEncapsulated: a packet that a node would decapsulate, from an address that is not an end of a tunnel.
	ReasonEncapsulated = "encapsulated"
	ReasonMapFull      = "map-full" // the pod's policies did not fit into the kernel's maps
)

// NameMiss is why the rules with domain names that come before a denial did not match.
type NameMiss struct {
	Reason string `json:"reason"`
	// Name that led to the address.
	Name string `json:"name,omitempty"`
}

// Reasons of a NameMiss.
const (
	NameMissExpired   = "name-expired"            // the address was that of an allowed name until its TTL was over
	NameMissOther     = "name-other"              // another name was asked for, such as one of the search path, or the target of a CNAME
	NameMissUntrusted = "name-untrusted-resolver" // the answer came from a resolver that is not trusted
	NameMissHint      = "name-https-hint"         // the address is a hint of the name's HTTPS record, and no A or AAAA record had it
	NameMissLimit     = "name-limit"              // the name, its pattern or the node had more addresses than it may have
)

// Endpoint is one end of a flow, as far as it is known. Only pods of the event's own node have names: what an agent knows of others
// is their addresses.
type Endpoint struct {
	IP netip.Addr `json:"ip,omitzero"`
	// Port is 0 where the protocol has none, and on lines with a Count that sum up several source ports.
	Port      uint16    `json:"port,omitempty"`
	Namespace string    `json:"namespace,omitempty"`
	Pod       string    `json:"pod,omitempty"`
	UID       string    `json:"-"` // of the pod
	Workload  *Workload `json:"workload,omitempty"`
	// DomainNames are DNS names of policies under which the node has learned the destination's address, at most MaxDomainNames.
	DomainNames []string `json:"domainNames,omitempty"`
}

// MaxDomainNames is the most names that Endpoint.DomainNames has.
const MaxDomainNames = 3

// Workload is what runs a pod, such as its Deployment.
type Workload struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// PolicyRef names a policy.
type PolicyRef struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Kinds of policies.
const (
	KindNetworkPolicy = "NetworkPolicy"
	KindEnforcingMode = "EnforcingMode" // what the node's mode adds
)

// String is "Kind namespace/name", or "Kind name" for a policy without a namespace.
func (r PolicyRef) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// RuleRef names a rule.
type RuleRef struct {
	PolicyRef
	// RuleName is the name that a ClusterNetworkPolicy gives its rule, if it does.
	RuleName string `json:"ruleName,omitempty"`
	// Rules are indexes, from 0, of the policy's own spec.ingress or spec.egress: those that the deciding rule comes from.
	Rules []int32 `json:"rules,omitempty"`
}
