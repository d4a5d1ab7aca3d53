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

// ConditionOfPolicy is the type of kidoban's condition in the status of a ClusterNetworkPolicy, which other implementations may
// write to as well.
const ConditionOfPolicy = "kidoban.dev/Resolved"

// PolicyCondition returns the condition for the status of a ClusterNetworkPolicy, of which conditions are there; false if it is
// there already.
func PolicyCondition(have []metav1.Condition, spec *v1alpha1.ClusterPolicyEndpointSpec, condition metav1.Condition) (metav1.Condition, bool) {
	condition.Type, condition.ObservedGeneration = ConditionOfPolicy, spec.PolicyRef.Generation
	if spec.Enforcement == v1alpha1.EnforcementAudit {
		condition.Message += ". The policy is audited and denies nothing"
	}
	all := []metav1.Condition{}
	if old := meta.FindStatusCondition(have, ConditionOfPolicy); old != nil {
		all = append(all, *old)
	}
	changed := meta.SetStatusCondition(&all, condition)
	return all[0], changed
}
