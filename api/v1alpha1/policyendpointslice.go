package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// PolicyEndpointSlice holds addresses of some groups. A group is what one peer selector resolves to, once for all the policies
// that use it. A local group contains pods of its own namespace only; any other group is shared. An address is once in a slice,
// together with the list of its groups. Addresses of shared groups are in slices of kidoban's own namespace only, which may have
// those of local groups, too.
//
// One slice of a group lists the names of all its slices: for a local group a slice of the group's namespace, for a shared one
// a slice of kidoban's own namespace. A group is complete when that slice exists, and each slice in the list exists and has the
// group in spec.groups. The group's members are the addresses that slices have of it; a slice that is not in the list counts as
// long as it exists. Agents put a policy in force when all its groups are complete; a group that becomes incomplete keeps its
// members until it is complete again.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=pes,categories=kidoban
// +kubebuilder:printcolumn:name="Addresses",type=integer,JSONPath=`.spec.count`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type PolicyEndpointSlice struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the slice's content.
	// +required
	// +structType=atomic
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

// PolicyEndpointSliceSpec is addresses of some groups.
// +kubebuilder:validation:XValidation:rule="!has(self.count) || self.count == (has(self.addresses) ? size(self.addresses) : 0)",message="count must be the number of addresses"
// +kubebuilder:validation:XValidation:rule="(has(self.classes) ? self.classes.map(c, c.count).sum() : 0) == (has(self.addresses) ? size(self.addresses) : 0)",message="the counts of the classes must add up to the number of addresses"
type PolicyEndpointSliceSpec struct {
	// groups are the groups of which this slice has addresses or lists the slices. No two have the same namespace and name.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	Groups []GroupPart `json:"groups,omitempty"`

	// addresses as canonical CIDRs of both families; single hosts as /32 and /128. Their order is that of the classes. An
	// address of a group that is in several slices counts once.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule="self.all(a, isCIDR(a) && string(cidr(a).masked()) == a)",message="must be CIDRs in canonical form such as 10.0.0.1/32: no host bits, IPv6 in lower case and compressed"
	Addresses []CIDR `json:"addresses,omitempty"`

	// classes divide the addresses by the groups that they are in: each class is the next addresses in the list.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:XValidation:rule="self.map(c, size(c.groups)).sum() <= 50000",message="the classes have more than 50000 groups together"
	Classes []AddressClass `json:"classes,omitempty"`

	// count is the number of addresses, for `kubectl get`.
	// +optional
	Count int32 `json:"count"`
}

// GroupPart names a group of which a slice has addresses or lists the slices.
// +kubebuilder:validation:XValidation:rule="!has(self.sharedSlices) || has(self.slices)",message="sharedSlices must be beside slices"
type GroupPart struct {
	// name by which PolicyEndpoints refer to the group.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`

	// namespace of a local group, in slices of kidoban's own namespace only. If it is absent, the group is one of the slice's own
	// namespace; in kidoban's own namespace, a shared group.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`

	// slices are the names of the group's slices in the namespace of this slice, this one included. Exactly one slice of a group
	// has this list. If several do, as may happen for a moment, the group is complete when the slices in all these lists exist. A
	// group without addresses has one slice, which lists itself.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	Slices []string `json:"slices,omitempty"`

	// sharedSlices are the names of the slices in kidoban's own namespace that have addresses of this local group. They are
	// beside slices only.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=253
	SharedSlices []string `json:"sharedSlices,omitempty"`

	// selector is what the group was resolved from. It is beside slices only. Agents ignore it; it is for people, and for a
	// controller that restarts.
	// +optional
	Selector *GroupSelector `json:"selector,omitempty"`
}

// AddressClass is a number of addresses that are in the same groups.
type AddressClass struct {
	// groups are indexes into spec.groups, from 0, in ascending order: the groups that each of the addresses is in.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:Minimum=0
	// +kubebuilder:validation:items:Maximum=999
	Groups []int32 `json:"groups"`

	// count is the number of addresses in spec.addresses, after those of the classes before.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Count int32 `json:"count"`
}

// GroupSelector selects pods or nodes.
type GroupSelector struct {
	// nodeSelector selects nodes, whose addresses the group has instead of those of pods. If it is empty, all are selected.
	// +optional
	NodeSelector *metav1.LabelSelector `json:"nodeSelector,omitempty"`
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

// IPBlock is a block of addresses without some parts of it. The API server does not check that they are CIDRs: agents do not
// read them.
type IPBlock struct {
	// cidr is the block.
	// +required
	CIDR CIDR `json:"cidr"`
	// except are parts of cidr that are excluded.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10000
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
