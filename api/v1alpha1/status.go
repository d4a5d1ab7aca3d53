package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EndpointStatus is the status of a PolicyEndpoint or a ClusterPolicyEndpoint. The controller that writes the object writes
// it; agents cannot write to the API server.
type EndpointStatus struct {
	// observedGeneration is the metadata.generation of this object that the status describes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// policyGeneration is the metadata.generation of the policy from which that generation of spec was made. If the policy
	// has a newer generation, the controller has not processed it yet, or the Resolved condition says why it cannot be used.
	// +optional
	// +kubebuilder:validation:Minimum=0
	PolicyGeneration int64 `json:"policyGeneration,omitempty"`
	// peers is the number of peers of all rules in both directions.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Peers int32 `json:"peers"`
	// nodes counts the nodes on which this generation of spec is in force. Absent if the controller does not know.
	// +optional
	Nodes *NodeCounts `json:"nodes,omitempty"`
	// conditions of the policy. Resolved is True if spec contains everything that the policy says. InForce is True if this
	// generation of spec is in force on all nodes that have pods which it selects. Audited is True while enforcement is Audit,
	// and absent otherwise.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// NodeCounts counts nodes.
type NodeCounts struct {
	// total is the number of nodes that have pods which the policy selects.
	// +required
	// +kubebuilder:validation:Minimum=0
	Total int32 `json:"total"`
	// inForce is the number of those nodes on which the policy is in force.
	// +required
	// +kubebuilder:validation:Minimum=0
	InForce int32 `json:"inForce"`
}

const (
	// ConditionResolved is True if spec contains everything that the policy says. If it is False, its reason and message say
	// what is missing.
	ConditionResolved = "Resolved"

	// Reasons of ConditionResolved.
	ReasonResolved            = "Resolved"
	ReasonUnresolvedNamedPort = "UnresolvedNamedPort"
	ReasonInvalidSelector     = "InvalidSelector"
	ReasonInvalidPeer         = "InvalidPeer"
	ReasonInvalidPort         = "InvalidPort"
	ReasonInvalidDomainName   = "InvalidDomainName"  // DNS cannot have such a name, so it matches nothing
	ReasonInvalidEnforcement  = "InvalidEnforcement" // the policy's LabelEnforcement has an unknown value; it is enforced
	ReasonTooLarge            = "TooLarge"
	ReasonOverBudget          = "OverBudget" // its namespace's policies ask for too many groups or addresses
	// ReasonUnsupportedDomainNames: domain names in another rule than one that accepts, in the Admin tier.
	ReasonUnsupportedDomainNames = "UnsupportedDomainNames"
	// ReasonNoTrustedResolver: the policy has domain names, and the controller knows no resolver whose answers count.
	ReasonNoTrustedResolver = "NoTrustedResolver"
	ReasonRejected          = "Rejected" // by the API server: a quota, an admission policy, a webhook or the schema

	// ConditionAudited is True while spec is audited: it isolates no pod and denies nothing. An enforced one does not have it, so
	// lastTransitionTime is since when the policy is audited.
	ConditionAudited = "Audited"
	// ReasonLabelled is the reason of ConditionAudited: the policy's LabelEnforcement.
	ReasonLabelled = "Labelled"

	// ConditionInForce is True if the observed generation of spec is in force on all nodes that have pods which it selects.
	ConditionInForce = "InForce"

	// Reasons of ConditionInForce.
	ReasonInForce       = "InForce"
	ReasonNotOnAllNodes = "NotOnAllNodes" // some nodes have not put it in force yet, or do not report
	ReasonNoAgent       = "NoAgent"       // no agent has reported from any of the nodes
	ReasonUnsupported   = "Unsupported"   // some nodes run a version that cannot enforce it; they isolate its pods
)
