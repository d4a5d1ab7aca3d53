// Package tiered has policies of the cluster as other engines enforce them: AdminNetworkPolicies and BaselineAdminNetworkPolicies of
// policy.networking.k8s.io/v1alpha1, and ClusterNetworkPolicies of networking.k8s.aws/v1alpha1, which have the same peers and ports. It
// reads and checks them, judges flows by them, and writes them as ClusterNetworkPolicies of policy.networking.k8s.io/v1alpha2.
//
// evaluate.go says what they mean and shares nothing with write.go, so that one can prove the other.
package tiered
