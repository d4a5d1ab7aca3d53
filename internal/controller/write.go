package controller

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
)

// tries is how often a write is repeated at once because another client wrote the object in the meantime.
const tries = 5

// untracked makes the API server keep no managedFields of an object, now and later: one empty entry clears
// them (Kubernetes' documentation of server-side apply, "Clearing managedFields"). These objects have one
// writer, and a slice is written for each change of a pod; managedFields would add more than a tenth to the
// cost for the API server and for every watch.
var untracked = []metav1.ManagedFieldsEntry{{}}

// get reads an object from the cache and reports whether it exists.
func (c *Controller) get(ctx context.Context, name types.NamespacedName, obj client.Object) (bool, error) {
	err := c.client.Get(ctx, name, obj)
	return err == nil, client.IgnoreNotFound(err)
}

// put makes an object what it should be. mutate changes obj, which is the existing object or empty, and
// reports whether it did; if not, put writes nothing. After a conflict put calls mutate again with the live
// object. Afterwards obj is what the API server has. put reports whether it wrote.
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
				log.FromContext(ctx).V(1).Info("Skipping create: namespace is terminating", "kind", kind, "name", name)
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
		// Another client was faster, or removed the controller's label, so that the cache does not contain
		// the object.
		err = c.live.Get(ctx, name, obj)
		found = err == nil
		err = client.IgnoreNotFound(err)
	}
	return false, fmt.Errorf("%s %s: other clients changed it during each of %d tries", kind, name, tries)
}

// delete deletes an object of the controller's, if it exists.
func (c *Controller) delete(ctx context.Context, name types.NamespacedName, obj client.Object) error {
	found, err := c.get(ctx, name, obj)
	if !found || !plan.IsOurs(obj) {
		return err
	}
	uid := obj.GetUID()
	err = timed(kindOf(obj), "delete", func() error { return c.client.Delete(ctx, obj, client.Preconditions{UID: &uid}) })
	return client.IgnoreNotFound(err)
}

func kindOf(obj client.Object) string {
	switch obj.(type) {
	case *v1alpha1.PolicyEndpoint:
		return "PolicyEndpoint"
	case *v1alpha1.ClusterPolicyEndpoint:
		return "ClusterPolicyEndpoint"
	case *v1alpha1.PolicyEndpointSlice:
		return "PolicyEndpointSlice"
	}
	return fmt.Sprintf("%T", obj)
}
