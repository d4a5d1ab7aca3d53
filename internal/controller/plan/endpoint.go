package plan

import (
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/resolver"
)

// Action is what a step does.
type Action string

// Actions of steps.
const (
	// WriteGroup writes the dirty slices of a group, after which it must be present; otherwise the plan ends
	// and is made anew.
	WriteGroup Action = "write group"
	// WriteEndpoint creates or updates the PolicyEndpoint.
	WriteEndpoint Action = "write endpoint"
	// DeleteEndpoint deletes the PolicyEndpoint.
	DeleteEndpoint Action = "delete endpoint"
	// QueueStatus writes the status later, after the specs of all other PolicyEndpoints in the queue.
	QueueStatus Action = "queue status"
)

// Step is one step of a plan for a PolicyEndpoint.
type Step struct {
	Action Action
	Group  policy.GroupKey // of WriteGroup
	Reason Reason
}

// Endpoint returns the steps that make a PolicyEndpoint what it should be, in order. want is nil if it should
// not exist, and have if it does not; present reports whether a group is complete on the API server.
func Endpoint(want *resolver.Endpoint, have *v1alpha1.PolicyEndpoint, present func(policy.GroupKey) bool) []Step {
	switch {
	case want == nil && (have == nil || !IsOurs(have)):
		return nil
	case want == nil:
		return []Step{{Action: DeleteEndpoint, Reason: PolicyGone}}
	}
	var steps []Step
	for _, g := range want.Groups {
		if !present(g) {
			steps = append(steps, Step{WriteGroup, g, ReferencedGroup})
		}
	}
	var next v1alpha1.PolicyEndpoint
	if have != nil {
		have.DeepCopyInto(&next)
	}
	switch {
	case SetEndpoint(&next, want) || have == nil:
		steps = append(steps, Step{Action: WriteEndpoint, Reason: SpecDiffers}, Step{Action: QueueStatus, Reason: StatusDiffers})
	case SetStatus(&next, Condition(want.Problems)):
		steps = append(steps, Step{Action: QueueStatus, Reason: StatusDiffers})
	}
	return steps
}

// SetEndpoint sets the parts of a PolicyEndpoint that the controller owns, and reports whether that changed
// anything. The specs may be outlines (see resolver.Outline), and the result is one if want's is.
func SetEndpoint(pe *v1alpha1.PolicyEndpoint, want *resolver.Endpoint) bool {
	ref := &want.Spec.PolicyRef
	owner := metav1.OwnerReference{APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: ref.Kind, Name: ref.Name, UID: want.UID}
	if ref.Kind == application.Kind {
		owner.APIVersion = application.Group + "/" + application.Version
	}
	changed := setOwner(pe, owner)
	if changed || !resolver.SameSpec(&pe.Spec, want.Spec) {
		pe.Spec = *want.Spec.DeepCopy()
		changed = true
	}
	return changed
}

// setOwner sets the labels and the owner of a policy's object, and reports whether that changed anything.
func setOwner(obj metav1.Object, owner metav1.OwnerReference) bool {
	changed := setLabels(obj, map[string]string{
		v1alpha1.LabelManagedBy:  v1alpha1.ManagedByController,
		v1alpha1.LabelPolicyKind: owner.Kind,
		v1alpha1.LabelPolicyUID:  string(owner.UID),
	})
	// The garbage collector deletes it with its policy; the policy's own deletion does not wait for it.
	owner.Controller, owner.BlockOwnerDeletion = new(true), new(false)
	if !equality.Semantic.DeepEqual(obj.GetOwnerReferences(), []metav1.OwnerReference{owner}) {
		obj.SetOwnerReferences([]metav1.OwnerReference{owner})
		changed = true
	}
	return changed
}
