package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// watch feeds the state from the cache, and returns when everything that there was is in it: this node's pods, and what
// the namespaces say that they are in.
func (a *Agent) watch(ctx context.Context) error {
	pods, err := a.subscribe(ctx, a.cache, &corev1.Pod{}, a.onPod, a.onPodGone)
	if err != nil {
		return err
	}
	toolscache.WaitForCacheSync(ctx.Done(), pods)
	patience := startPatience
	if alone, err := a.dp.Alone(); err != nil {
		return err
	} else if alone {
		patience = 0 // while nothing judges, nothing is worth waiting for
	}
	return wait.PollUntilContextCancel(ctx, 10*time.Millisecond, true, func(context.Context) (bool, error) {
		a.followNamespaces(ctx)
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.state.complete() {
			return false, nil
		}
		return !a.awaitsGroups(patience), nil
	})
}

// awaitsGroups reports whether PolicyEndpoints still have time to wait for their groups; those that have not isolate. The caller holds mu.
func (a *Agent) awaitsGroups(patience time.Duration) bool {
	awaits := a.state.awaitsGroups(patience)
	a.isolateLate(patience) // afterwards: time passes, and who is not waited for is late by now
	return awaits
}

// isolateLate isolates the pods of PolicyEndpoints that have waited too long for their groups, and reports whether there were any. The caller
// holds mu.
func (a *Agent) isolateLate(patience time.Duration) bool {
	late := a.state.isolateLate(patience)
	for _, key := range late {
		a.opts.Log.Info("A policy's groups do not come; its pods are isolated, and it allows what is known of the groups", "policyEndpoint", key.String())
	}
	return len(late) > 0
}

// subscribe hands the events of a kind of object to set, the object as it was (nil if it is new) and as it is, and to gone. It asks
// until the API server can say what the kind is, or the context is done, which also ends the events. What it returns says whether set
// has been given all that there was.
func (a *Agent) subscribe(ctx context.Context, c cache.Cache, object client.Object, set func(ctx context.Context, old, now any), gone func(context.Context, any)) (toolscache.InformerSynced, error) {
	var registration toolscache.ResourceEventHandlerRegistration
	told := false
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) {
		informer, err := c.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			if !told && ctx.Err() == nil {
				told = true
				a.opts.Log.Error(err, "Cannot watch yet; it is tried again", "kind", fmt.Sprintf("%T", object))
			}
			return false, nil
		}
		registration, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(obj any) { set(ctx, nil, obj) },
			UpdateFunc: func(old, now any) { set(ctx, old, now) },
			DeleteFunc: func(obj any) { gone(ctx, obj) },
		})
		return err == nil, err
	})
	if err != nil {
		return nil, err
	}
	return registration.HasSynced, nil
}

func (a *Agent) onPod(ctx context.Context, _, now any) {
	a.update(ctx, func(s *state) { s.setPod(now.(*corev1.Pod)) })
}

func (a *Agent) onPodGone(ctx context.Context, obj any) {
	pod := last[*corev1.Pod](obj)
	a.update(ctx, func(s *state) { s.podGone(pod) })
}

func (a *Agent) onNamespace(ctx context.Context, _, now any) {
	ns := now.(*corev1.Namespace)
	a.update(ctx, func(s *state) { s.setNamespace(ns.Name, ns.Labels) })
}

func (a *Agent) onPolicyEndpoint(ctx context.Context, _, now any) {
	pe := now.(*v1alpha1.PolicyEndpoint)
	a.update(ctx, func(s *state) { a.reject("PolicyEndpoint", pe, s.setPolicyEndpoint(pe)) })
}

func (a *Agent) onPolicyEndpointGone(ctx context.Context, obj any) {
	pe := last[*v1alpha1.PolicyEndpoint](obj)
	a.update(ctx, func(s *state) { s.deletePolicyEndpoint(types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}) })
}

func (a *Agent) onSlice(ctx context.Context, old, now any) {
	pes := now.(*v1alpha1.PolicyEndpointSlice)
	a.update(ctx, func(s *state) {
		a.reject("PolicyEndpointSlice", pes, s.setSlice(pes))
		if old, ok := old.(*v1alpha1.PolicyEndpointSlice); ok && old.Spec.Group != pes.Spec.Group { // made again while the watch was down
			s.deleteSlice(groupOf(old), old.Name)
		}
	})
}

func (a *Agent) onSliceGone(ctx context.Context, obj any) {
	pes := last[*v1alpha1.PolicyEndpointSlice](obj)
	a.update(ctx, func(s *state) { s.deleteSlice(groupOf(pes), pes.Name) })
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
