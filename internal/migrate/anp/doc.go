// Package anp reads AdminNetworkPolicies and BaselineAdminNetworkPolicies of policy.networking.k8s.io/v1alpha1, strictly: an object with
// a field that this version does not have is refused, as that field could be the one that denies.
package anp
