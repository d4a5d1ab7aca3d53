package observerapi

import (
	"encoding/json"
	"net/netip"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
)

// Flow is what is known about connections of one kind, of one source, destination, destination port and protocol that were decided
// alike, in a span of time. Both ends' decisions are in it: a flow that two nodes report is one Flow.
type Flow struct {
	// First and Last are the times of the first and the last connection, by the observer's clock.
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Source and Destination as decided: after DNAT, before SNAT.
	Source      End `json:"source"`
	Destination End `json:"destination"`
	// Service is the Service that the source called, as namespace/name, if it did.
	Service string `json:"service,omitempty"`
	// Protocol is TCP, UDP, SCTP, ICMP, ICMPv6 or a number.
	Protocol string `json:"protocol"`
	// Port of the destination; 0 where the protocol has none.
	Port uint16 `json:"port,omitempty"`
	// Verdict of both ends together: denied if one of them denies.
	Verdict Verdict `json:"verdict"`
	// Egress is the decision of the source's policies, Ingress that of the destination's. One is nil if that end is no pod, or if its
	// node has not reported: see Sides.
	Egress  *Decision `json:"egress,omitempty"`
	Ingress *Decision `json:"ingress,omitempty"`
	// Sides says which nodes have reported.
	Sides Sides `json:"sides"`
	// Connections that were opened, or tried, within First and Last: 0 for packets that continue or answer a connection.
	Connections uint64 `json:"connections"`
	// Packets that were decided, and their Bytes: as many as Connections, or those that continue or answer.
	Packets uint64 `json:"packets,omitempty"`
	Bytes   uint64 `json:"bytes,omitempty"`
	// Continues is set if the packets belong to a connection that the kernel has forgotten.
	Continues bool `json:"continues,omitempty"`
	// Reply is set if they answer it, so that Destination is its client: there is no connection from Source to Destination.
	Reply bool `json:"reply,omitempty"`
}

// Verdict is what became of a flow.
type Verdict string

// The verdicts.
const (
	Allowed      Verdict = "Allowed"
	Denied       Verdict = "Denied"
	WouldBeDeny  Verdict = "WouldBeDenied"  // allowed, and denied if what is audited were enforced
	WouldBeAllow Verdict = "WouldBeAllowed" // denied, and allowed if what is audited were enforced
)

// Sides says which ends' nodes have reported a flow.
type Sides string

// The sides.
const (
	Complete Sides = "Complete" // every end that is a pod
	OneSide  Sides = "OneSide"  // both ends are pods, and the node of one has not reported
)

// End is one end of a flow.
type End struct {
	// Namespace, Pod, Workload, Labels, NamespaceLabels, NamedPorts and Node are those of the pod at the time of the flow; all are empty
	// for what is no pod.
	Namespace       string             `json:"namespace,omitempty"`
	Pod             string             `json:"pod,omitempty"`
	UID             string             `json:"uid,omitempty"`
	Workload        *agentapi.Workload `json:"workload,omitempty"`
	Labels          map[string]string  `json:"labels,omitempty"`
	NamespaceLabels map[string]string  `json:"namespaceLabels,omitempty"`
	NamedPorts      []NamedPort        `json:"namedPorts,omitempty"`
	// Node of the pod; or the node itself, if the end is a node (IsNode).
	Node   string `json:"node,omitempty"`
	IsNode bool   `json:"isNode,omitempty"`
	// Address is invalid where it is not known any more: more addresses than an observer keeps exactly.
	Address netip.Addr `json:"address,omitzero"`
	// DomainNames under which the source's node had learned the address when the connection was opened.
	DomainNames []string `json:"domainNames,omitempty"`
	// Hidden is set if the reader may not read the namespace: nothing but Namespace and Workload is filled.
	Hidden bool `json:"hidden,omitempty"`
}

// NamedPort is a named port of a pod.
type NamedPort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Number   uint16 `json:"number"`
}

// Decision is what the policies of one end decided.
type Decision struct {
	// Verdict is Allowed or Denied.
	Verdict Verdict `json:"verdict"`
	// Reason, Tier, Policy, IsolatedBy: as in an event of the agent's API.
	Reason     string               `json:"reason"`
	Tier       string               `json:"tier,omitempty"`
	Policy     *agentapi.RuleRef    `json:"policy,omitempty"`
	IsolatedBy []agentapi.PolicyRef `json:"isolatedBy,omitempty"`
	// Audited says what would be decided if what is audited were enforced, where that is something else; the policies are in AuditedBy.
	Audited   Verdict              `json:"audited,omitempty"`
	AuditedBy []agentapi.PolicyRef `json:"auditedBy,omitempty"`
}

// Loss says what is missing in a span of time.
type Loss struct {
	// Node is empty where the reader may not see which nodes there are.
	Node  string    `json:"node"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	// Reason is ring, rate, queue or absent (the node did not report at all).
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets,omitempty"`
	Records uint64 `json:"records,omitempty"`
}

// Where is the node of a loss in words.
func (l *Loss) Where() string {
	if l.Node == "" {
		return "some nodes"
	}
	return "node " + l.Node
}

// Coverage says how much of a span of time an answer knows.
type Coverage struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// CompleteSince is since when the observer has all that agents have pushed, if that is later than Since: it began to record then, or has
	// deleted what is older.
	CompleteSince time.Time `json:"completeSince,omitzero"`
	// Resolution of the oldest flows, in seconds: older ones are rolled up.
	Resolution int `json:"resolution"`
	// Losses within the span, by node and reason.
	Losses []Loss `json:"losses,omitempty"`
	// Truncated is set if the answer leaves out something because of its limit: what is not in it may have happened all the same.
	Truncated bool `json:"truncated,omitempty"`
}

// LeftOut reports whether an answer with so many items, of so many at most, may lack some. Observers before the field Truncated do not set it.
func (c *Coverage) LeftOut(items, limit int) bool { return c.Truncated || items >= limit }

// Missing is a line of an answer that follows, beside those that are a Flow each: what is missing among the flows that arrive.
type Missing struct {
	// Losses that agents have reported.
	Losses []Loss `json:"losses,omitempty"`
	// Missed is how many flows arrived that the reader was too slow for.
	Missed uint64 `json:"missed,omitempty"`
}

// FollowedLine is a line of an answer that follows: a Flow, or Missing.
type FollowedLine struct {
	Flow
	Missing
}

// IsFlow reports whether the line is a Flow: each has a protocol. Readers ignore lines that are neither a Flow nor Missing, which an observer of a
// later version may send.
func (l *FollowedLine) IsFlow() bool { return l.Protocol != "" }

// FlowList is an answer with flows, and without Flows the first line of a recorded file.
type FlowList struct {
	APIVersion string   `json:"apiVersion"` // APIVersion
	Kind       string   `json:"kind"`       // FlowList
	Coverage   Coverage `json:"coverage"`
	// Hidden are namespaces of which the reader sees nothing but names.
	Hidden []string `json:"hidden,omitempty"`
	Flows  []Flow   `json:"flows,omitempty"`
}

// Hit says how often a rule, or a default because of a policy, decided, or would decide.
type Hit struct {
	agentapi.RuleRef
	// Direction is Egress or Ingress.
	Direction string  `json:"direction"`
	Verdict   Verdict `json:"verdict"`
	Reason    string  `json:"reason"`
	Tier      string  `json:"tier,omitempty"`
	// Connections that were decided so, in namespaces that the reader may read, and the time of the last.
	Connections uint64    `json:"connections"`
	Last        time.Time `json:"last"`
}

// HitList is the answer of PathHits.
type HitList struct {
	APIVersion string   `json:"apiVersion"` // APIVersion
	Kind       string   `json:"kind"`       // HitList
	Coverage   Coverage `json:"coverage"`
	Hits       []Hit    `json:"hits"`
}

// Status is the answer of PathStatus.
type Status struct {
	APIVersion string `json:"apiVersion"` // APIVersion
	Kind       string `json:"kind"`       // ObserverStatus
	Version    string `json:"version"`
	// Started is when this replica started. It has all that agents have pushed since CompleteSince.
	Started       time.Time `json:"started"`
	CompleteSince time.Time `json:"completeSince,omitzero"`
	// Since is the time of the oldest flow that it has; with pods and addresses since ExactSince.
	Since      time.Time `json:"since,omitzero"`
	ExactSince time.Time `json:"exactSince,omitzero"`
	// Bytes on disk, and Reports with pods and addresses: one for each end of a flow.
	Bytes   int64 `json:"bytes"`
	Reports int64 `json:"reports"`
	// PerSecond is the number of reports that arrived per second in the last minute.
	PerSecond float64 `json:"perSecond"`
	// CertificateExpires is when the certificate of this replica expires.
	CertificateExpires time.Time `json:"certificateExpires,omitzero"`
	// Nodes of the cluster, by name, and those that have reported.
	Nodes []NodeStatus `json:"nodes"`
	// Losses of the last hour, by node and reason.
	Losses []Loss `json:"losses,omitempty"`
}

// NodeStatus is what an observer knows of an agent.
type NodeStatus struct {
	Name string `json:"name"`
	// Connected since then; zero: the agent is not connected to this replica.
	Connected time.Time `json:"connected,omitzero"`
	// ClockAhead is how far the node's clock is before the observer's, in seconds, as far as recent pushes show it. Times of flows are corrected.
	ClockAhead float64 `json:"clockAhead,omitempty"`
	// First and Last push that is stored.
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
}

// NodeReport is a line of the answer of PathNodes.
type NodeReport struct {
	Node string `json:"node"`
	// Report is an agentapi.NodeReport as the node's agent has sent it.
	Report json.RawMessage `json:"report,omitempty"`
	// Problem is why there is none.
	Problem string `json:"problem,omitempty"`
}

// APIVersion of all answers.
const APIVersion = "observer.kidoban.dev/v1"

// Reasons of a Loss that an observer finds itself, beside those of agents.
const (
	LossAbsent = "absent" // the node did not report at all
)

// Kinds of answers.
const (
	KindFlowList = "FlowList"
	KindHitList  = "HitList"
	KindStatus   = "ObserverStatus"
)

// Port on which an observer serves its API.
const Port = 4245

// Names of an observer, in kidoban's namespace.
const (
	// Service is the name of its Service, and the name in its certificate.
	Service = "kidoban-observer"
	// Authority is the ConfigMap with the certificates that readers trust, PEM, below AuthorityKey.
	Authority, AuthorityKey = "kidoban-observer-ca", "ca.crt"
	// Audience is what a reader's token must have been issued for.
	Audience = "kidoban-observer"
)

// Paths of the observer's API. All are GET; each needs a token, see docs/observer.md. Parameters: since and until (RFC 3339 or a
// duration back from now), namespace, pod, workload (namespace/name), verdict, port, protocol, policy, limit.
const (
	// PathFlows answers a FlowList; with follow=true lines of JSON, a Flow or Missing each, from since on without end.
	PathFlows = "/v1/flows"
	// PathEdges answers a FlowList summed up by workload: pods, labels and addresses of ends are left out.
	PathEdges = "/v1/edges"
	// PathHits answers a HitList.
	PathHits = "/v1/hits"
	// PathStatus answers a Status, to readers of all namespaces.
	PathStatus = "/v1/status"
	// PathNodes answers lines of JSON, a NodeReport each, of the agents that are connected to this replica, or of those of the nodes in the
	// parameter node, which may come several times. The agents are asked for it now. It is for readers of all namespaces.
	PathNodes = "/v1/nodes"
)
