package controller

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// tries is how often a write is tried again at once because somebody else wrote the object meanwhile.
const tries = 5

// untracked has the API server keep no managedFields of an object that is updated, now and later: one empty entry takes them away
// (Kubernetes' documentation of server-side apply, "Clearing managedFields"). Our objects have one writer, and a slice is written
// for each change of a pod; to keep them would cost the API server and all who watch more than a tenth of that.
var untracked = []metav1.ManagedFieldsEntry{{}}

// get reads an object from the cache and reports whether it is there.
func (c *Controller) get(ctx context.Context, name types.NamespacedName, obj client.Object) (bool, error) {
	err := c.client.Get(ctx, name, obj)
	return err == nil, client.IgnoreNotFound(err)
}

// put makes an object what it should be. mutate changes obj, which is what is there or empty, and reports whether it did; where it did
// not, nothing is written. Afterwards obj is what is there. put reports whether it wrote.
func (c *Controller) put(ctx context.Context, obj client.Object, mutate func() bool) (bool, error) {
	name := client.ObjectKeyFromObject(obj)
	kind := kindOf(obj)
	found, err := c.get(ctx, name, obj)
	for range tries {
		switch {
		case err != nil:
			return false, err
		case !found:
			obj.SetNamespace(name.Namespace)
			obj.SetName(name.Name)
			obj.SetUID("")
			obj.SetResourceVersion("")
			mutate()
			err = timed(kind, "create", func() error { return c.client.Create(ctx, obj) })
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				log.FromContext(ctx).V(1).Info("Nothing is created in a namespace that goes", "kind", kind, "name", name)
				return false, nil
			}
		case !mutate():
			return false, nil
		default:
			obj.SetManagedFields(untracked)
			err = timed(kind, "update", func() error { return c.client.Update(ctx, obj) })
		}
		if !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) && (!found || !apierrors.IsNotFound(err)) {
			return err == nil, err
		}
		// Somebody was faster, or has taken our label off it, so that the cache does not show it.
		err = c.live.Get(ctx, name, obj)
		found = err == nil
		err = client.IgnoreNotFound(err)
	}
	return false, fmt.Errorf("%s %s: others wrote it %d times meanwhile", kind, name, tries)
}

// delete deletes an object of ours, if it is there.
func (c *Controller) delete(ctx context.Context, name types.NamespacedName, obj client.Object) error {
	found, err := c.get(ctx, name, obj)
	if !found || !isOurs(obj) {
		return err
	}
	uid := obj.GetUID()
	err = timed(kindOf(obj), "delete", func() error { return c.client.Delete(ctx, obj, client.Preconditions{UID: &uid}) })
	return client.IgnoreNotFound(err)
}

func isOurs(obj client.Object) bool {
	return obj.GetLabels()[v1alpha1.LabelManagedBy] == v1alpha1.ManagedByController
}

// setLabels sets some labels, leaves others, and reports whether that changed anything.
func setLabels(obj client.Object, want map[string]string) bool {
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

func hasLabels(obj client.Object, want map[string]string) bool {
	for k, v := range want {
		if has, ok := obj.GetLabels()[k]; !ok || has != v {
			return false
		}
	}
	return true
}

func kindOf(obj client.Object) string {
	switch obj.(type) {
	case *v1alpha1.PolicyEndpoint:
		return "PolicyEndpoint"
	case *v1alpha1.PolicyEndpointSlice:
		return "PolicyEndpointSlice"
	}
	return fmt.Sprintf("%T", obj)
}
