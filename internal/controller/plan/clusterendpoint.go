package plan

import (
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/resolver"
)

// SetClusterEndpoint sets the parts of a ClusterPolicyEndpoint that the controller owns, and reports whether that changed
// anything.
func SetClusterEndpoint(cpe *v1alpha1.ClusterPolicyEndpoint, want *resolver.ClusterEndpoint) bool {
	changed := setOwner(cpe, metav1.OwnerReference{
		APIVersion: cnp.GroupVersion.String(), Kind: want.Spec.PolicyRef.Kind, Name: want.Policy, UID: want.UID,
	})
	if !equality.Semantic.DeepEqual(&cpe.Spec, want.Spec) {
		cpe.Spec = *want.Spec.DeepCopy()
		changed = true
	}
	return changed
}

// SetClusterStatus sets a ClusterPolicyEndpoint's status and reports whether that changed anything.
func SetClusterStatus(cpe *v1alpha1.ClusterPolicyEndpoint, condition metav1.Condition) bool {
	changed := setAudited(&cpe.Status, cpe.Generation, cpe.Spec.Enforcement)
	return setStatus(&cpe.Status, cpe.Generation, cpe.Spec.PolicyRef.Generation, condition, cpe.Spec.Ingress, cpe.Spec.Egress) || changed
}

// The types of kidoban's conditions in the status of a ClusterNetworkPolicy, which other implementations may write to as well.
const (
	ConditionOfPolicy        = "kidoban.dev/Resolved"
	InForceConditionOfPolicy = "kidoban.dev/InForce"
)

// PolicyConditions returns kidoban's conditions for the status of a ClusterNetworkPolicy, of which conditions are there: whether all of it can be
// enforced, and where it is in force as its ClusterPolicyEndpoint says, unless that is nil or does not say it. It reports whether they differ
// from those that are there.
func PolicyConditions(have []metav1.Condition, spec *v1alpha1.ClusterPolicyEndpointSpec, resolved metav1.Condition, cpe *v1alpha1.ClusterPolicyEndpoint) (all []metav1.Condition, changed bool) {
	for _, c := range have {
		if c.Type == ConditionOfPolicy || c.Type == InForceConditionOfPolicy {
			all = append(all, c)
		}
	}
	resolved.Type, resolved.ObservedGeneration = ConditionOfPolicy, spec.PolicyRef.Generation
	if spec.Enforcement == v1alpha1.EnforcementAudit {
		resolved.Message += ". The policy is audited and denies nothing"
	}
	changed = meta.SetStatusCondition(&all, resolved)
	if cpe == nil {
		return all, meta.RemoveStatusCondition(&all, InForceConditionOfPolicy) || changed
	}
	inForce := meta.FindStatusCondition(cpe.Status.Conditions, v1alpha1.ConditionInForce)
	switch {
	case inForce == nil:
		changed = meta.RemoveStatusCondition(&all, InForceConditionOfPolicy) || changed
	case inForce.ObservedGeneration == cpe.Generation: // otherwise nothing is known of this version yet
		now := *inForce
		now.Type, now.ObservedGeneration = InForceConditionOfPolicy, cpe.Spec.PolicyRef.Generation
		changed = meta.SetStatusCondition(&all, now) || changed
	}
	return all, changed
}
