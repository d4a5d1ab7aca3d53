package controller

import (
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// While a watch is down, a slice may be deleted and another one created under its name. The watch then
// reports one update, and in the meantime agents did not have the group.
func TestASliceThatIsReplacedUnderItsNameIsWrittenAgain(t *testing.T) {
	r := resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 4})
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "1"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}}
	r.SetPolicy(np)
	change := r.Start(resolver.Existing{}).Slices[0]
	spec, _ := r.Slice(change.Name)
	key := policy.GroupKey{Namespace: "shop", Name: spec.Groups[0].Name}
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[request]())
	defer q.ShutDown()
	c := &Controller{resolver: r, slices: plan.NewSlices("kidoban-system", 0), queue: q, reports: newReports()}
	written := func() {
		batch, _, _ := c.slices.Take(change.Name, r, time.Time{})
		c.slices.Written(batch, change.Name)
	}
	c.slices.Touch([]resolver.SliceChange{change}, time.Time{})
	written()
	if !c.slices.Present(key, r) {
		t.Fatal("the group is not complete at first")
	}

	ours := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: change.Name.Name, UID: "1"}}
	plan.SetSlice(ours, &spec)
	other := ours.DeepCopy()
	other.UID, other.Spec = "2", oneGroup(other.Name, "by-hand")
	c.watchSlices().Update(t.Context(), event.TypedUpdateEvent[*v1alpha1.PolicyEndpointSlice]{ObjectOld: ours, ObjectNew: other}, q)
	if c.slices.Present(key, r) {
		t.Error("its group counts as complete")
	}
	expectRequest := func() {
		t.Helper()
		if q.Len() != 1 {
			t.Fatalf("%d requests", q.Len())
		}
		got, _ := q.Get()
		q.Done(got)
		if got != (request{kind: sliceSet, name: change.Name}) {
			t.Errorf("requested is %+v", got)
		}
	}
	expectRequest()
	written()
	if !c.slices.Present(key, r) {
		t.Error("the group is not complete when the slice was written again")
	}
	// the same slice, edited, leaves its group complete
	edited := ours.DeepCopy()
	setAddresses(&edited.Spec, "10.0.0.1/32")
	c.watchSlices().Update(t.Context(), event.TypedUpdateEvent[*v1alpha1.PolicyEndpointSlice]{ObjectOld: ours, ObjectNew: edited}, q)
	if !c.slices.Present(key, r) {
		t.Error("after an edit its group is not complete")
	}
	expectRequest()
}

// oneGroup is the spec of a slice that lists itself and has these addresses of one group.
func oneGroup(name, group string, addresses ...v1alpha1.CIDR) v1alpha1.PolicyEndpointSliceSpec {
	spec := v1alpha1.PolicyEndpointSliceSpec{Groups: []v1alpha1.GroupPart{{Name: group, Slices: []string{name}}}}
	setAddresses(&spec, addresses...)
	return spec
}

// setAddresses replaces the addresses of a slice of one group.
func setAddresses(spec *v1alpha1.PolicyEndpointSliceSpec, addresses ...v1alpha1.CIDR) {
	spec.Addresses, spec.Count = addresses, int32(len(addresses))
	spec.Classes = []v1alpha1.AddressClass{{Groups: []int32{0}, Count: spec.Count}}
}
