package controller

import (
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/resolver"
)

// While a watch is down, a slice may be deleted and another one created under its name. The watch then
// reports one update.
func TestASliceThatIsReplacedUnderItsNameIsWrittenAgain(t *testing.T) {
	r := resolver.New(resolver.Options{SharedNamespace: "kidoban-system", MaxAddresses: 4})
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "1"}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}}
	r.SetPolicy(np)
	key := r.Start(resolver.Existing{}).Slices[0]
	spec, _ := r.Slice(key)
	q := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[request]())
	defer q.ShutDown()
	c := &Controller{resolver: r, groups: plan.NewGroups(0), queue: q}
	c.groups.Touch(key, time.Time{}, time.Time{})
	batch := c.groups.Take(key.Group, r, time.Time{})
	c.groups.Written(&batch)

	ours := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: resolver.SliceName(key.Group.Name, 0)}}
	if _, err := plan.SetSlice(ours, &spec); err != nil {
		t.Fatal(err)
	}
	other := ours.DeepCopy()
	other.UID, other.Spec = "2", oneGroup(other.Name, "by-hand")
	c.slices().Update(t.Context(), event.TypedUpdateEvent[*v1alpha1.PolicyEndpointSlice]{ObjectOld: ours, ObjectNew: other}, q)

	if c.groups.Present(key.Group) {
		t.Error("its group counts as complete")
	}
	got := map[request]bool{}
	for q.Len() > 0 {
		next, _ := q.Get()
		got[next] = true
		q.Done(next)
	}
	for _, want := range []request{{group, types.NamespacedName(key.Group)}, {stray, types.NamespacedName{Namespace: "shop", Name: other.Name}}} {
		if !got[want] {
			t.Errorf("%+v is not in the queue: %+v", want, got)
		}
	}
	// the same slice, edited, leaves its group complete
	c.groups.Written(&batch)
	edited := ours.DeepCopy()
	setAddresses(&edited.Spec, "10.0.0.1/32")
	c.slices().Update(t.Context(), event.TypedUpdateEvent[*v1alpha1.PolicyEndpointSlice]{ObjectOld: ours, ObjectNew: edited}, q)
	if !c.groups.Present(key.Group) || q.Len() != 1 {
		t.Errorf("after an edit its group is complete: %t; %d requests", c.groups.Present(key.Group), q.Len())
	}
}
