package plan

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// KeyOf returns the group and index of a slice, or false if the slice does not have the name that the
// controller gives it: then it is a stray, to be deleted if it has the controller's label.
func KeyOf(pes *v1alpha1.PolicyEndpointSlice) (resolver.SliceKey, bool) {
	if len(pes.Spec.Groups) != 1 {
		return resolver.SliceKey{}, false
	}
	group := pes.Spec.Groups[0].Name
	number, _ := strings.CutPrefix(pes.Name, group+"-")
	index, err := strconv.ParseInt(number, 10, 32)
	key := resolver.SliceKey{Group: policy.GroupKey{Namespace: pes.Namespace, Name: group}, Index: int32(index)}
	return key, err == nil && index >= 0 && pes.Name == resolver.SliceName(group, key.Index)
}

// SetSlice makes a slice what it should be and reports whether that changed anything. It returns an error for
// a slice of another group under the same name: SetSlice marks it as the
// controller's, so that it is deleted as a stray and makes room.
func SetSlice(pes *v1alpha1.PolicyEndpointSlice, spec *v1alpha1.PolicyEndpointSliceSpec) (changed bool, err error) {
	if IsSlice(pes, spec) {
		return false, nil
	}
	if pes.UID != "" {
		if _, ok := KeyOf(pes); !ok {
			return setLabels(pes, sliceLabels),
				fmt.Errorf("PolicyEndpointSlice %s/%s belongs to another group; it is deleted to make room", pes.Namespace, pes.Name)
		}
	}
	setLabels(pes, sliceLabels)
	pes.Spec = *spec
	return true, nil
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
