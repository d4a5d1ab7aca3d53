package plan

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// The status of a ClusterNetworkPolicy has kidoban's two conditions, about the policy's generation.
func TestConditionsOfAClusterNetworkPolicy(t *testing.T) {
	spec := &v1alpha1.ClusterPolicyEndpointSpec{PolicyRef: v1alpha1.PolicyReference{Generation: 7}}
	resolved := metav1.Condition{Type: v1alpha1.ConditionResolved, Status: "True", Reason: "Resolved", Message: "all"}
	cpe := &v1alpha1.ClusterPolicyEndpoint{Spec: *spec}
	cpe.Generation = 3
	inForce := metav1.Condition{Type: v1alpha1.ConditionInForce, Status: "False", Reason: "NotOnAllNodes", Message: "1 of 2", ObservedGeneration: 3}
	others := []metav1.Condition{{Type: "example.com/Ready", Status: "True"}}

	all, changed := PolicyConditions(others, spec, resolved, cpe)
	if !changed || len(all) != 1 || all[0].Type != ConditionOfPolicy || all[0].ObservedGeneration != 7 {
		t.Errorf("before agents reported: %+v, %t", all, changed)
	}
	cpe.Status.Conditions = []metav1.Condition{inForce}
	all, changed = PolicyConditions(append(others, all...), spec, resolved, cpe)
	got := meta.FindStatusCondition(all, InForceConditionOfPolicy)
	if !changed || len(all) != 2 || got == nil || got.Message != "1 of 2" || got.ObservedGeneration != 7 {
		t.Errorf("after agents reported: %+v, %t", all, changed)
	}
	if again, changed := PolicyConditions(append(others, all...), spec, resolved, cpe); changed || len(again) != 2 {
		t.Errorf("without a change: %+v, %t", again, changed)
	}
	// The controller has written the next version, and no agent has reported it.
	spec.PolicyRef.Generation, cpe.Spec.PolicyRef.Generation, cpe.Generation = 8, 8, 4
	all, _ = PolicyConditions(all, spec, resolved, cpe)
	if got := meta.FindStatusCondition(all, InForceConditionOfPolicy); got == nil || got.ObservedGeneration != 7 {
		t.Errorf("of the version before: %+v", got)
	}
	// The stream was turned off, or there is no ClusterPolicyEndpoint.
	cpe.Status.Conditions = nil
	for _, of := range []*v1alpha1.ClusterPolicyEndpoint{cpe, nil} {
		if rest, changed := PolicyConditions(all, spec, resolved, of); !changed || len(rest) != 1 {
			t.Errorf("without the condition: %+v, %t", rest, changed)
		}
	}
}
