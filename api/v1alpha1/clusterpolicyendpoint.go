package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterPolicyEndpoint is one cluster-wide policy in the form that agents enforce: ordered rules over groups of addresses
// and CIDRs. The addresses of its groups are in PolicyEndpointSlices of kidoban's own namespace.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=kcpe,categories=kidoban
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policyRef.name`
// +kubebuilder:printcolumn:name="Tier",type=string,JSONPath=`.spec.tier`
// +kubebuilder:printcolumn:name="Priority",type=integer,JSONPath=`.spec.priority`
// +kubebuilder:printcolumn:name="Peers",type=integer,JSONPath=`.status.peers`
// +kubebuilder:printcolumn:name="Resolved",type=string,JSONPath=`.status.conditions[?(@.type=="Resolved")].status`
// +kubebuilder:printcolumn:name="In Force",type=string,JSONPath=`.status.conditions[?(@.type=="InForce")].status`
// +kubebuilder:printcolumn:name="Enforcement",type=string,priority=1,JSONPath=`.spec.enforcement`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Resolved")].reason`
// +kubebuilder:printcolumn:name="Nodes",type=integer,priority=1,JSONPath=`.status.nodes.total`
// +kubebuilder:printcolumn:name="Nodes In Force",type=integer,priority=1,JSONPath=`.status.nodes.inForce`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterPolicyEndpoint struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what agents enforce.
	// +required
	Spec ClusterPolicyEndpointSpec `json:"spec"`
	// status reports how much of the policy is in spec, and where spec is in force.
	// +optional
	Status EndpointStatus `json:"status,omitzero"`
}

// ClusterPolicyEndpointList is a list of ClusterPolicyEndpoints.
//
// +kubebuilder:object:root=true
type ClusterPolicyEndpointList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterPolicyEndpoint `json:"items"`
}

// ClusterPolicyEndpointSpec is one cluster-wide policy, normalised.
type ClusterPolicyEndpointSpec struct {
	// policyRef names the policy from which this object is made. Logs and `kubectl kidoban explain` quote it.
	// +required
	PolicyRef PolicyReference `json:"policyRef"`

	// tier is evaluated before NetworkPolicies (Admin) or after them (Baseline). Baseline applies to pods that no
	// NetworkPolicy isolates in the direction.
	// +required
	Tier Tier `json:"tier"`

	// priority orders the policies of a tier: the lowest is evaluated first.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=1000
	Priority int32 `json:"priority"`

	// enforcement says whether the policy decides about packets.
	// +optional
	// +default="Enforce"
	Enforcement Enforcement `json:"enforcement,omitempty"`

	// subject selects the pods that the policy applies to.
	// +required
	Subject Subject `json:"subject"`

	// ingress decides about connections to the selected pods. The first rule that matches decides. Connections that no rule
	// matches are left to the policies after this one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:XValidation:rule="self.all(r, r.action != 'Allow')",message="actions of a ClusterPolicyEndpoint are Accept, Deny and Pass"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.peers) || r.peers.all(p, !has(p.domainNames)))",message="domainNames are for egress only"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.peers) || r.peers.all(p, !has(p.group) || (has(p.group.shared) && p.group.shared)))",message="groups of a ClusterPolicyEndpoint must be shared"
	Ingress []Rule `json:"ingress,omitempty"`

	// egress decides about connections from the selected pods, in the form of ingress.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=400
	// +kubebuilder:validation:XValidation:rule="self.all(r, r.action != 'Allow')",message="actions of a ClusterPolicyEndpoint are Accept, Deny and Pass"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.ports) || r.ports.all(p, !has(p.name)))",message="named ports are for ingress only, where they belong to the selected pod"
	// +kubebuilder:validation:XValidation:rule="self.all(r, !has(r.peers) || r.peers.all(p, !has(p.group) || (has(p.group.shared) && p.group.shared)))",message="groups of a ClusterPolicyEndpoint must be shared"
	Egress []Rule `json:"egress,omitempty"`

	// UnknownFields are the paths, below spec, of fields that this build does not know. A newer controller may have written
	// them. They may change what the policy means, so an agent must not enforce the rest as if they were absent.
	UnknownFields []string `json:"-"`
}

// Tier is a step of evaluation of cluster-wide policies.
// +kubebuilder:validation:Enum=Admin;Baseline
type Tier string

// The tiers. Admin is evaluated before NetworkPolicies, Baseline after them.
const (
	TierAdmin    Tier = "Admin"
	TierBaseline Tier = "Baseline"
)

// Subject selects pods of several namespaces. Each agent evaluates it against the pods of its own node. Pods of the host
// network are never selected.
type Subject struct {
	// namespaceSelector selects namespaces. An empty selector selects all.
	// +required
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	// podSelector selects pods in those namespaces. An empty selector selects all.
	// +required
	PodSelector metav1.LabelSelector `json:"podSelector"`
}
