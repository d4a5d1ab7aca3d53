package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// watch feeds the state from the cache, and returns when everything that there was is in it.
func (a *Agent) watch(ctx context.Context) error {
	sources := []struct {
		object client.Object
		set    func(any)
		gone   func(any)
	}{
		{&corev1.Pod{}, a.onPod, a.onPodGone},
		{&v1alpha1.PolicyEndpointSlice{}, a.onSlice, a.onSliceGone},
		{&v1alpha1.PolicyEndpoint{}, a.onPolicyEndpoint, a.onPolicyEndpointGone},
	}
	var synced []toolscache.InformerSynced
	for _, s := range sources {
		registration, err := a.subscribe(ctx, s.object, toolscache.ResourceEventHandlerFuncs{
			AddFunc:    s.set,
			UpdateFunc: func(_, obj any) { s.set(obj) },
			DeleteFunc: s.gone,
		})
		if err != nil {
			return err
		}
		if registration != nil {
			synced = append(synced, registration.HasSynced)
		}
	}
	toolscache.WaitForCacheSync(ctx.Done(), synced...)
	return nil
}

// subscribe asks for an informer until the API server can say what its kind is.
func (a *Agent) subscribe(ctx context.Context, object client.Object, handler toolscache.ResourceEventHandler) (toolscache.ResourceEventHandlerRegistration, error) {
	var registration toolscache.ResourceEventHandlerRegistration
	told := false
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(ctx context.Context) (bool, error) {
		informer, err := a.cache.GetInformer(ctx, object)
		if err != nil {
			if !told && ctx.Err() == nil {
				told = true
				a.opts.Log.Error(err, "Cannot watch yet; it is tried again", "kind", fmt.Sprintf("%T", object))
			}
			return false, nil
		}
		registration, err = informer.AddEventHandler(handler)
		return err == nil, err
	})
	if ctx.Err() != nil {
		return nil, nil
	}
	return registration, err
}

func (a *Agent) onPod(obj any) {
	a.update(func(s *state) { s.setPod(obj.(*corev1.Pod)) })
}

func (a *Agent) onPodGone(obj any) {
	pod := last[*corev1.Pod](obj)
	a.update(func(s *state) { s.deletePod(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}) })
}

func (a *Agent) onPolicyEndpoint(obj any) {
	pe := obj.(*v1alpha1.PolicyEndpoint)
	a.update(func(s *state) { a.reject("PolicyEndpoint", pe, s.setPolicyEndpoint(pe)) })
}

func (a *Agent) onPolicyEndpointGone(obj any) {
	pe := last[*v1alpha1.PolicyEndpoint](obj)
	a.update(func(s *state) { s.deletePolicyEndpoint(types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}) })
}

func (a *Agent) onSlice(obj any) {
	pes := obj.(*v1alpha1.PolicyEndpointSlice)
	a.update(func(s *state) { a.reject("PolicyEndpointSlice", pes, s.setSlice(pes)) })
}

func (a *Agent) onSliceGone(obj any) {
	pes := last[*v1alpha1.PolicyEndpointSlice](obj)
	a.update(func(s *state) {
		s.deleteSlice(policy.GroupKey{Namespace: pes.Namespace, Name: pes.Spec.Group}, pes.Name)
	})
}

// reject says that an object cannot be read. What it said before stays in force.
func (a *Agent) reject(kind string, obj client.Object, err error) {
	if err == nil {
		return
	}
	a.metrics.rejected.WithLabelValues(kind).Inc()
	a.opts.Log.Error(err, "Cannot read an object; what it said before stays in force", "kind", kind, "namespace", obj.GetNamespace(), "name", obj.GetName())
}

// last is the object of a deletion, also of one that was missed while the watch was down.
func last[T any](obj any) T {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	return obj.(T)
}
