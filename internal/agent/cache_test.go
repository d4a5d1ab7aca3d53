package agent

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestAStrippedSliceHasWhatTheNodeReads(t *testing.T) {
	selector := &v1alpha1.GroupSelector{PodSelector: &metav1.LabelSelector{}}
	full := &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s1", UID: "1", ResourceVersion: "2", Labels: map[string]string{"a": "b"}},
		Spec: v1alpha1.PolicyEndpointSliceSpec{
			Groups:    []v1alpha1.GroupPart{{Name: "g", Slices: []string{"s1", "s2"}, SharedSlices: []string{"s3"}, Selector: selector}, {Name: "h"}},
			Addresses: []v1alpha1.CIDR{"10.0.0.1/32", "2001:db8::1/128", "10.1.0.0/16"},
			Classes:   []v1alpha1.AddressClass{{Groups: []int32{0}, Count: 2}, {Groups: []int32{0, 1}, Count: 1}},
			Count:     3,
		},
	}
	obj, err := strip(full)
	if err != nil {
		t.Fatal(err)
	}
	stripped := obj.(*v1alpha1.PolicyEndpointSlice)
	got, gotErr := policy.FromSlice(stripped, "kidoban-system")
	want, wantErr := policy.FromSlice(full, "kidoban-system")
	if gotErr != nil || wantErr != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read as %+v, %v; before as %+v, %v", got, gotErr, want, wantErr)
	}
	if stripped.Namespace != "shop" || stripped.Name != "s1" || stripped.UID != "1" || stripped.ResourceVersion != "2" {
		t.Errorf("metadata %+v", stripped.ObjectMeta)
	}
	if stripped.Labels != nil || stripped.Spec.Groups[0].Selector != nil || full.Spec.Groups[0].Selector == nil {
		t.Errorf("%+v of %+v", stripped, full)
	}
}
