package v1alpha1

import (
	"k8s.io/apimachinery/pkg/types"
)

// Rule decides about traffic between the selected pods and some peers on some ports. It matches a connection if one of its
// peers and one of its ports match.
type Rule struct {
	// name of the policy's rule. Logs quote it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`
	// action for the connections that the rule matches. Rules of a PolicyEndpoint can only Allow; their order has no meaning.
	// In a ClusterPolicyEndpoint the first rule that matches decides: Accept and Deny are final for the direction, Pass
	// leaves the decision to the next tier.
	// +required
	Action Action `json:"action"`
	// ruleIndexes are the indexes of the policy's own rules, in this direction, from which this rule is made. Logs quote them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:Minimum=0
	RuleIndexes []int32 `json:"ruleIndexes,omitempty"`
	// peers are the other ends of the connections that the rule matches. If there are none, the rule matches every peer
	// inside and outside the cluster. Write more peers than fit as another rule with the same ports.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=48
	Peers []Peer `json:"peers,omitempty"`
	// ports that the rule matches: those of the selected pod for ingress, those of the peer for egress. If there are none,
	// the rule matches every port of every protocol, and also protocols that have no ports.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Ports []Port `json:"ports,omitempty"`
}

// Action is what a rule does with the connections that it matches.
// +kubebuilder:validation:Enum=Allow;Accept;Deny;Pass
type Action string

// The actions. Allow is the action of NetworkPolicy's rules, the others are those of ClusterNetworkPolicy's rules.
const (
	ActionAllow  Action = "Allow"
	ActionAccept Action = "Accept"
	ActionDeny   Action = "Deny"
	ActionPass   Action = "Pass"
)

// Peer is the other end of a connection: the addresses of a group, a CIDR without some parts of it, or the addresses that
// domain names resolve to.
// +kubebuilder:validation:ExactlyOneOf=group;cidr;domainNames
// +kubebuilder:validation:XValidation:rule="!has(self.except) || (has(self.cidr) && [cidr(self.cidr)].all(c, self.except.all(e, c.containsCIDR(e))))",message="except needs a cidr that contains it"
type Peer struct {
	// group is a group of addresses.
	// +optional
	Group *GroupReference `json:"group,omitempty"`
	// cidr is a block of addresses, such as 10.0.0.0/8 or 2001:db8::/32, in canonical form.
	// +optional
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || string(cidr(self).masked()) == self",message="must be in canonical form: no host bits, IPv6 in lower case and compressed"
	CIDR CIDR `json:"cidr,omitempty"`
	// except are blocks inside cidr that this peer does not match. Another peer of the rule may match them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	Except []CIDR `json:"except,omitempty"`
	// domainNames are names whose addresses this peer matches, as nodes learn them from the answers of trusted resolvers. Only
	// egress rules that allow can have names.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=25
	DomainNames []DomainName `json:"domainNames,omitempty"`
}

// GroupReference names a group, whose addresses are in PolicyEndpointSlices of one namespace.
type GroupReference struct {
	// name of the group.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
	// shared is true for a group whose slices are in kidoban's own namespace. The slices of any other group are in the
	// namespace of the PolicyEndpoint. All groups of a ClusterPolicyEndpoint are shared.
	// +optional
	Shared bool `json:"shared,omitempty"`
}

// CIDR is an address block in canonical form: no host bits, IPv6 in lower case and compressed (RFC 5952).
// +kubebuilder:validation:MinLength=4
// +kubebuilder:validation:MaxLength=43
type CIDR string

// DomainName is a DNS name in lower case without a trailing dot, such as example.com, or a wildcard such as *.example.com. A
// wildcard matches names of any depth below the rest, and not the rest itself.
// +kubebuilder:validation:MaxLength=253
// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)+$`
type DomainName string

// Port is a port, a range of ports, all ports of a protocol, or a port that the selected pod names.
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || (has(self.port) && self.endPort >= self.port)",message="endPort needs a port that is not greater"
// +kubebuilder:validation:XValidation:rule="!(has(self.name) && has(self.port))",message="name and port exclude each other"
type Port struct {
	// protocol of the port.
	// +optional
	// +default="TCP"
	Protocol Protocol `json:"protocol,omitempty"`
	// port is a port number. If neither port nor name is set, every port of the protocol matches.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
	// endPort is the last port of a range that begins with port.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort int32 `json:"endPort,omitempty"`
	// name of a container port of the selected pod. The number behind it may differ from pod to pod. Ingress only: for egress,
	// the controller resolves the name to port numbers and to groups of the pods that have them.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name,omitempty"`
}

// Protocol is a protocol that has ports.
// +kubebuilder:validation:Enum=TCP;UDP;SCTP
type Protocol string

// The protocols that have ports.
const (
	ProtocolTCP  Protocol = "TCP"
	ProtocolUDP  Protocol = "UDP"
	ProtocolSCTP Protocol = "SCTP"
)

// PolicyReference names a policy.
type PolicyReference struct {
	// kind of the policy, for example NetworkPolicy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// name of the policy. Its namespace is that of the object that refers to it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid of the policy. It distinguishes a policy from one that was deleted and created again under the same name.
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// generation is the metadata.generation of the policy from which this spec was made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int64 `json:"generation,omitempty"`
}

// Enforcement says whether a policy decides about packets.
// +kubebuilder:validation:Enum=Enforce;Audit
type Enforcement string

// The values of Enforcement.
const (
	// EnforcementEnforce puts the policy in force.
	EnforcementEnforce Enforcement = "Enforce"
	// EnforcementAudit records what the policy would deny, and denies nothing.
	EnforcementAudit Enforcement = "Audit"
)
