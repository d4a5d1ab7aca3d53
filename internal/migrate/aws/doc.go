// Package aws reads the policies of Amazon's network policy engine that are not Kubernetes': ClusterNetworkPolicies and
// ApplicationNetworkPolicies of networking.k8s.aws/v1alpha1. It judges flows by them and writes them as ClusterNetworkPolicies of
// policy.networking.k8s.io and NetworkPolicies.
//
// Amazon's kind ClusterNetworkPolicy has the name of upstream's and is another kind. Within one policy, Amazon's agent does not keep the
// order of rules: Deny comes before Accept, and Accept before Pass.
package aws
