package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyEndpointSlice holds some of the addresses of a group. A group is what one peer selector resolves to, once for all
// the policies that use it. The slices of a group that contains pods of one namespace only are in that namespace; those of
// any other group, a shared one, are in kidoban's own namespace.
//
// A group is complete when its slice with index 0 exists and a slice exists for every other index below that slice's
// spec.slices. Agents put a policy in force when all its groups are complete.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=pes,categories=kidoban
// +kubebuilder:printcolumn:name="Group",type=string,JSONPath=`.spec.group`
// +kubebuilder:printcolumn:name="Addresses",type=integer,JSONPath=`.spec.count`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEndpointSlice struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the slice's content.
	// +required
	Spec PolicyEndpointSliceSpec `json:"spec"`
}

// PolicyEndpointSliceList is a list of PolicyEndpointSlices.
//
// +kubebuilder:object:root=true
type PolicyEndpointSliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PolicyEndpointSlice `json:"items"`
}

// PolicyEndpointSliceSpec is some of the addresses of a group.
// +kubebuilder:validation:XValidation:rule="!has(self.slices) || self.index == 0",message="only the slice with index 0 has the number of slices"
// +kubebuilder:validation:XValidation:rule="!has(self.count) || self.count == (has(self.addresses) ? size(self.addresses) : 0)",message="count must be the number of addresses"
// +kubebuilder:validation:XValidation:rule="self.group == oldSelf.group && self.index == oldSelf.index",message="group and index are immutable"
type PolicyEndpointSliceSpec struct {
	// group is the name by which PolicyEndpoints refer to the group.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Group string `json:"group"`

	// index of this slice in its group, from 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Index int32 `json:"index"`

	// slices is the number of slices of the group. Only the slice with index 0 has it. If it is absent there, the group has
	// one slice.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Slices int32 `json:"slices,omitempty"`

	// selector is what the group was resolved from. Agents ignore it; it is for people, and for a controller that restarts.
	// +optional
	Selector *GroupSelector `json:"selector,omitempty"`

	// addresses of the group, as canonical CIDRs of both families; single hosts as /32 and /128. An address that is in
	// several slices counts once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule="self.all(a, isCIDR(a) && string(cidr(a).masked()) == a)",message="must be CIDRs in canonical form such as 10.0.0.1/32: no host bits, IPv6 in lower case and compressed"
	Addresses []CIDR `json:"addresses,omitempty"`

	// count is the number of addresses, for `kubectl get`.
	// +optional
	Count int32 `json:"count"`
}

// GroupSelector selects pods.
type GroupSelector struct {
	// namespaceSelector selects namespaces. If it is absent, only the slice's own namespace is selected; if it is empty, all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// podSelector selects pods in those namespaces. If it is absent or empty, all are selected.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// port narrows the group to pods that give this name to this port.
	// +optional
	Port *NamedPort `json:"port,omitempty"`
	// ipBlock narrows the group to those of the pods' addresses that are in a block. It is used where a policy has a named
	// port with an ipBlock.
	// +optional
	IPBlock *IPBlock `json:"ipBlock,omitempty"`
}

// IPBlock is a block of addresses without some parts of it.
type IPBlock struct {
	// cidr is the block.
	// +required
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	CIDR CIDR `json:"cidr"`
	// except are parts of cidr that are excluded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	Except []CIDR `json:"except,omitempty"`
}

// NamedPort is the name of a container port and its number.
type NamedPort struct {
	// protocol of the port.
	// +required
	Protocol Protocol `json:"protocol"`
	// name of the container port.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=15
	Name string `json:"name"`
	// port is its number.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
}
