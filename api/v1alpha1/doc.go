// Package v1alpha1 contains the API between kidoban's controller and its agents. A PolicyEndpoint holds the rules of one
// namespaced policy, a ClusterPolicyEndpoint those of one cluster-wide policy, and PolicyEndpointSlices hold the addresses
// that their selectors resolve to.
//
// Agents enforce these objects no matter which controller writes them. To add another policy kind, or another source of
// addresses, write a controller that writes these objects.
//
// +kubebuilder:object:generate=true
// +groupName=networking.kidoban.dev
package v1alpha1
