package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyEndpointSlice holds some of the addresses of a group: of the pods that one peer selector comes to, resolved once
// for all the policies that use it. A group of one namespace's own pods lives in that namespace, one that crosses
// namespaces in kidoban's own.
//
// A group is whole when its slice with index 0 is there and so is every other index below that slice's spec.slices.
// Agents put a policy in force when all its groups are whole.
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

// PolicyEndpointSliceSpec is a part of a group.
// +kubebuilder:validation:XValidation:rule="!has(self.slices) || self.index == 0",message="only the slice with index 0 says how many slices the group has"
// +kubebuilder:validation:XValidation:rule="!has(self.count) || self.count == (has(self.addresses) ? size(self.addresses) : 0)",message="count is the number of addresses"
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

	// slices is the number of slices that the group has; only the slice with index 0 says it. Absent: 1.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Slices int32 `json:"slices,omitempty"`

	// selector is what the group was resolved from. It is there for people to read; agents use the addresses.
	// +optional
	Selector *GroupSelector `json:"selector,omitempty"`

	// addresses of the group, as canonical CIDRs of both families; single hosts as /32 and /128. One that stands twice
	// counts once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule="self.all(a, isCIDR(a) && string(cidr(a).masked()) == a)",message="must be CIDRs in canonical form, as 10.0.0.1/32: no host bits, IPv6 in lower case and compressed"
	Addresses []CIDR `json:"addresses,omitempty"`

	// count is the number of addresses, for `kubectl get`.
	// +optional
	Count int32 `json:"count"`
}

// GroupSelector selects pods.
type GroupSelector struct {
	// namespaceSelector selects namespaces. Absent: the slice's own namespace; empty: all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	// podSelector selects pods in those namespaces. Absent or empty: all.
	// +optional
	PodSelector *metav1.LabelSelector `json:"podSelector,omitempty"`
	// port narrows the group to pods that give this name to this port.
	// +optional
	Port *NamedPort `json:"port,omitempty"`
	// ipBlock narrows the group to those of the pods' addresses that lie in a block: where a policy names a port beside an ipBlock.
	// +optional
	IPBlock *IPBlock `json:"ipBlock,omitempty"`
}

// IPBlock is a block of addresses less some parts of it.
type IPBlock struct {
	// cidr is the block.
	// +required
	// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	CIDR CIDR `json:"cidr"`
	// except are parts of it that are left out.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:XValidation:rule="isCIDR(self)",message="must be a CIDR such as 10.0.0.0/8 or 2001:db8::/32"
	Except []CIDR `json:"except,omitempty"`
}

// NamedPort is a container port's name and the number behind it.
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
