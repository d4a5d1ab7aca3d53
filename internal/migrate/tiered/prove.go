package tiered

import (
	"context"
	"slices"

	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/migrate/clusterproof"
)

// Prove compares policies with ClusterNetworkPolicies, whatever the NetworkPolicies between the tiers are.
func Prove(ctx context.Context, before []Policy, after []cnp.ClusterNetworkPolicy) (*clusterproof.Report, error) {
	terms, err := Terms(before)
	if err != nil {
		return nil, err
	}
	more, err := clusterproof.ClusterTerms(after)
	if err != nil {
		return nil, err
	}
	return clusterproof.Compare(ctx, slices.Concat(terms, more), &Judge{Sorted(before)}, &clusterproof.Reference{Cluster: after, Tiers: true})
}
