package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyEndpoint is one namespaced policy in the form that agents enforce: normalised rules over groups of addresses and
// CIDRs. It changes only when the policy changes; the addresses of its groups are in PolicyEndpointSlices.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=pe,categories=kidoban
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policyRef.name`
// +kubebuilder:printcolumn:name="Types",type=string,JSONPath=`.spec.policyTypes`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="Resolved")].status`
// +kubebuilder:printcolumn:name="In Force",type=string,JSONPath=`.status.conditions[?(@.type=="InForce")].status`
// +kubebuilder:printcolumn:name="Enforcement",type=string,priority=1,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Resolved")].reason`
// +kubebuilder:printcolumn:name="Nodes",type=integer,priority=1,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Nodes In Force",type=integer,priority=1,JSONPath=`.status.nodes.inForce`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEndpoint struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what agents enforce.
	// +required
	Spec PolicyEndpointSpec `json:"spec"`
	// status reports how much of the policy is in spec, and where spec is in force.
	// +optional
	Status EndpointStatus `json:"status,omitzero"`
}

// PolicyEndpointList is a list of PolicyEndpoints.
//
// +kubebuilder:object:root=true
type PolicyEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicyEndpoint `json:"items"`
}

// PolicyEndpointSpec is one namespaced policy, normalised.
type PolicyEndpointSpec struct {
	// policyRef names the policy from which this object is made. Logs and `kubectl kidoban explain` quote it.
	// +required
	PolicyRef PolicyReference `json:"policyRef"`

	// enforcement says whether the policy decides about packets. Agents record what a policy under Audit would decide beside the
	// enforced ones; it isolates no pod and denies nothing. Agents of versions that do not support Audit isolate its pods.
	// +optional
	// +default="Enforce"
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// podSelector selects the pods of this namespace that the policy applies to, as the policy has it. An empty selector
	// selects every pod. Each agent evaluates it against the pods of its own node, so that a pod is isolated from its start.
	// Pods of the host network are never selected.
	// +required
	PodSelector metav1.LabelSelector `json:"podSelector"`

	// policyTypes are the directions in which the selected pods are isolated: there, only what a rule allows is allowed.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=2
	PolicyTypes []PolicyType `json:"policyTypes"`

	// ingress allows connections to the selected pods. If it is empty, and policyTypes contains Ingress, the policy allows
	// none. The controller writes each peer once, with the union of the ports that the policy's rules give it.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:XValidation:rule="self.all(r, r.action == 'Allow')",message="rules of a PolicyEndpoint can only Allow"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.peers) || r.peers.all(p, !has(p.domainNames)))",message="domainNames are for egress only"
	Ingress []Rule `json:"ingress,omitempty"`

	// egress allows connections from the selected pods, in the form of ingress.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:XValidation:rule="self.all(r, r.action == 'Allow')",message="rules of a PolicyEndpoint can only Allow"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.ports) || r.ports.all(p, !has(p.name)))",message="named ports are for ingress only, where they belong to the selected pod"
	Egress []Rule `json:"egress,omitempty"`

	// UnknownFields are the paths, below spec, of fields that this build does not know. A newer controller may have written
	// them. They may change what the policy means, so an agent must not enforce the rest as if they were absent.
	UnknownFields []string `json:"-"`
}

// PolicyType is a direction in which a policy isolates pods.
// +kubebuilder:validation:Enum=Ingress;Egress
type PolicyType string

// The policy types.
const (
	PolicyTypeIngress PolicyType = "Ingress"
	PolicyTypeEgress  PolicyType = "Egress"
)
