// Package v1alpha1 holds the objects by which kidoban's controller and its agents speak: what a policy says
// (PolicyEndpoint) and the addresses that its selectors come to (PolicyEndpointSlice).
//
// The agents enforce whatever PolicyEndpoints they find, whoever wrote them: another policy kind, or another source of
// addresses, is added by writing these objects.
//
// +kubebuilder:object:generate=true
// +groupName=networking.kidoban.dev
package v1alpha1
