package plan

import (
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// SetSlice makes a slice what it should be and reports whether that changed anything. A slice of another
// client's under the same name becomes the controller's.
func SetSlice(pes *v1alpha1.PolicyEndpointSlice, spec *v1alpha1.PolicyEndpointSliceSpec) (changed bool) {
	if IsSlice(pes, spec) {
		return false
	}
	setLabels(pes, sliceLabels)
	spec.DeepCopyInto(&pes.Spec) // a client decodes into pes afterwards
	return true
}

// IsSlice reports whether a slice is what it should be.
func IsSlice(pes *v1alpha1.PolicyEndpointSlice, spec *v1alpha1.PolicyEndpointSliceSpec) bool {
	return hasLabels(pes, sliceLabels) && equality.Semantic.DeepEqual(&pes.Spec, spec)
}

// IsOurs reports whether the controller may change and delete an object.
func IsOurs(obj metav1.Object) bool {
	return obj.GetLabels()[v1alpha1.LabelManagedBy] == v1alpha1.ManagedByController
}

var sliceLabels = map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController}

// setLabels sets some labels, leaves others, and reports whether that changed anything.
func setLabels(obj metav1.Object, want map[string]string) bool {
	if hasLabels(obj, want) {
		return false
	}
	labels := maps.Clone(obj.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	maps.Copy(labels, want)
	obj.SetLabels(labels)
	return true
}

func hasLabels(obj metav1.Object, want map[string]string) bool {
	for k, v := range want {
		if has, ok := obj.GetLabels()[k]; !ok || has != v {
			return false
		}
	}
	return true
}
