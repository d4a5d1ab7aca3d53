package agent

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestAStrippedSliceIsReadOnce(t *testing.T) {
	pes := &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "s1", UID: "1", ResourceVersion: "2", Labels: map[string]string{"a": "b"}},
		Spec: v1alpha1.PolicyEndpointSliceSpec{
			Groups:    []v1alpha1.GroupPart{{Name: "g", Slices: []string{"s1"}, Selector: &v1alpha1.GroupSelector{}}},
			Addresses: []v1alpha1.CIDR{"10.0.0.1/32"},
			Classes:   []v1alpha1.AddressClass{{Groups: []int32{0}, Count: 1}},
		},
	}
	obj := strip(pes, shared)
	if want := policy.ReadSlice(pes); !reflect.DeepEqual(obj, want) {
		t.Errorf("%+v, want %+v", obj, want)
	}
	if again := strip(obj, shared); again != obj { // as for the first objects of a watch
		t.Errorf("stripped again it is %+v", again)
	}
}

func TestAStrippedPolicyEndpointIsReadOnce(t *testing.T) {
	obj := strip(policyEndpoint("deny"), shared)
	if want := policy.ReadEndpoint(policyEndpoint("deny"), shared); !reflect.DeepEqual(obj, want) {
		t.Errorf("%+v, want %+v", obj, want)
	}
	if again := strip(obj, shared); again != obj {
		t.Errorf("stripped again it is %+v", again)
	}
}
