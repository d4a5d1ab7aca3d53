package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// PolicyEndpoint is what one policy says, in the form that agents enforce: normalised rules over groups of addresses
// and CIDRs. It changes only when the policy does; the addresses of its groups are in PolicyEndpointSlices.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pe,categories=kidoban
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policyRef.name`
// +kubebuilder:printcolumn:name="Types",type=string,JSONPath=`.spec.policyTypes`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Resolved")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Resolved")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEndpoint struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what agents enforce.
	// +required
	Spec PolicyEndpointSpec `json:"spec"`
	// status says how far the policy could be honoured.
	// +optional
	Status PolicyEndpointStatus `json:"status,omitzero"`
}

// PolicyEndpointList is a list of PolicyEndpoints.
//
// +kubebuilder:object:root=true
type PolicyEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicyEndpoint `json:"items"`
}

// PolicyEndpointSpec is one policy, normalised.
type PolicyEndpointSpec struct {
	// policyRef names the policy that this object stands for. Logs and `kubectl kidoban explain` quote it.
	// +required
	PolicyRef PolicyReference `json:"policyRef"`

	// tier is the step of evaluation that the policy belongs to. Admin is judged first, then NetworkPolicy, then Baseline.
	// +optional
	// +default="NetworkPolicy"
	Tier Tier `json:"tier,omitempty"`

	// priority orders policies inside the Admin and Baseline tiers, the lowest first. It means nothing in the NetworkPolicy tier,
	// where policies add up.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Priority int32 `json:"priority,omitempty"`

	// podSelector selects the pods of this namespace that the policy applies to, as the policy has it. An empty selector
	// selects every pod. Each agent evaluates it against the pods of its own node, so a pod is protected when it starts.
	// Pods of the host network are never selected.
	// +required
	PodSelector metav1.LabelSelector `json:"podSelector"`

	// policyTypes are the directions in which the selected pods are isolated: whatever no rule allows is refused there.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	PolicyTypes []PolicyType `json:"policyTypes"`

	// ingress is what may reach the selected pods. Each peer stands once, with the union of the ports that the policy's
	// rules give it. Empty, with Ingress among the policy types: nothing may.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	Ingress []Rule `json:"ingress,omitempty"`

	// egress is what the selected pods may reach, in the form of ingress.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.ports) || r.ports.all(p, !has(p.name)))",message="a named port belongs to the selected pod: ingress only"
	Egress []Rule `json:"egress,omitempty"`
}

// PolicyReference names a policy.
type PolicyReference struct {
	// kind of the policy, as NetworkPolicy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind"`
	// name of the policy. Its namespace is the PolicyEndpoint's.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// uid of the policy: a policy that was deleted and made again under the same name is another one.
	// +optional
	UID types.UID `json:"uid,omitempty"`
	// generation of the policy that this spec was made from.
	// +optional
	Generation int64 `json:"generation,omitempty"`
}

// Tier is a step of policy evaluation.
// +kubebuilder:validation:Enum=Admin;NetworkPolicy;Baseline
type Tier string

// The tiers, in the order in which they are judged.
const (
	TierAdmin         Tier = "Admin"
	TierNetworkPolicy Tier = "NetworkPolicy"
	TierBaseline      Tier = "Baseline"
)

// PolicyType is a direction that a policy isolates pods in.
// +kubebuilder:validation:Enum=Ingress;Egress
type PolicyType string

// The policy types.
const (
	PolicyTypeIngress PolicyType = "Ingress"
	PolicyTypeEgress  PolicyType = "Egress"
)

// Rule allows traffic between the selected pods and some peers on some ports.
type Rule struct {
	// rules are the indexes of the policy's own rules, in this direction, that this one comes from. Logs quote them.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:Minimum=0
	Rules []int32 `json:"rules,omitempty"`
	// peers that the rule is about. Empty: every peer, in the cluster or outside it. More of them than fit stand in another entry
	// with the same ports.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=48
	Peers []Peer `json:"peers,omitempty"`
	// ports that the rule is about: at the selected pod for ingress, at the peer for egress. Empty: every port of every protocol,
	// also of protocols that have no ports.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=2000
	Ports []Port `json:"ports,omitempty"`
}

// Peer is one end of a rule: the addresses of a group, or a CIDR less some parts of it.
// +kubebuilder:validation:ExactlyOneOf=group;cidr
// +kubebuilder:validation:XValidation:rule="!has(self.except) || (has(self.cidr) && [cidr(self.cidr)].all(c, self.except.all(e, c.containsCIDR(e))))",message="except needs a cidr and lies inside it"
type Peer struct {
	// group is the name of a group: the addresses in all PolicyEndpointSlices with this spec.group, in this namespace or,
	// where there are none, in kidoban's own.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Group string `json:"group,omitempty"`
	// cidr is a block of addresses, as 10.0.0.0/8 or 2001:db8::/32, in canonical form.
	// +optional
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	// +kubebuilder:validation:XValidation:rule="!isCIDR(self) || string(cidr(self).masked()) == self",message="must be in canonical form: no host bits, IPv6 in lower case and compressed"
	CIDR CIDR `json:"cidr,omitempty"`
	// except are blocks inside cidr that this peer does not cover. Another peer may cover them all the same.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	Except []CIDR `json:"except,omitempty"`
}

// CIDR is an address block in canonical form: no host bits, IPv6 in lower case and compressed (RFC 5952).
// +kubebuilder:validation:MinLength=4
// +kubebuilder:validation:MaxLength=43
type CIDR string

// Port is a port, a range of ports, a whole protocol, or a port that the selected pod names.
// +kubebuilder:validation:XValidation:rule="!has(self.endPort) || (has(self.port) && self.endPort >= self.port)",message="endPort needs a port that is not greater"
// +kubebuilder:validation:XValidation:rule="!(has(self.name) && has(self.port))",message="port and name exclude each other"
type Port struct {
	// protocol of the port.
	// +optional
	// +default="TCP"
	Protocol Protocol `json:"protocol,omitempty"`
	// port is a number. With neither port nor name, every port of the protocol.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port,omitempty"`
	// endPort makes port the first of a range, and is its last.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	EndPort int32 `json:"endPort,omitempty"`
	// name is a container port's name at the selected pod; each pod may have another number for it. Ingress only: a name at a peer is
	// resolved into the peer's group.
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

// PolicyEndpointStatus is what the controller found.
type PolicyEndpointStatus struct {
	// observedGeneration is the metadata.generation of this object that the status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// peers is the number of different peers in both directions.
	// +optional
	Peers int32 `json:"peers"`
	// conditions: Resolved is true when all that the policy says is in spec. Where it is false, its reason and message say what is not.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}
