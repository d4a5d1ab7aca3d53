package agent

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// watchPods feeds the state with this node's pods. It returns when they are in the state, with everything in their namespaces that is there
// or that is worth waiting for.
func (a *Agent) watchPods(ctx context.Context) error {
	pods, err := a.subscribe(ctx, a.cache, &corev1.Pod{}, a.onPod, a.onPodGone)
	if err != nil {
		return err
	}
	toolscache.WaitForCacheSync(ctx.Done(), pods)
	patience := node.StartPatience
	if alone, err := a.kernel.Alone(); err != nil {
		return err
	} else if alone {
		patience = 0 // while no policy is in force at all, nothing is worth waiting for
	}
	again := time.NewTicker(time.Second) // patience ends without an event
	defer again.Stop()
	for {
		if a.isComplete(ctx, patience) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.state.changed: // the writer does not need it before takeOver
		case <-again.C:
		}
	}
}

// isComplete reports whether all namespaces are synced and no policy may wait longer for its groups. Those that have waited for too long
// isolate their pods.
func (a *Agent) isComplete(ctx context.Context, patience time.Duration) (complete bool) {
	a.state.read(func(n *node.Node) { complete = n.Synced() && !n.AwaitsGroups(time.Now(), patience) })
	if complete {
		a.isolateLate(ctx, patience)
	}
	return complete
}

// subscribe passes the events of a kind of object to set, with the object before (nil if it is new) and now, and to gone. It retries until the
// API server has the kind, or the context is done, which also ends the events. The returned function reports whether set has had all objects
// that there were.
func (a *Agent) subscribe(ctx context.Context, c cache.Cache, object client.Object, set func(ctx context.Context, old, now any), gone func(context.Context, any)) (toolscache.InformerSynced, error) {
	var registration toolscache.ResourceEventHandlerRegistration
	logged := false
	err := wait.PollUntilContextCancel(ctx, time.Second, true, func(context.Context) (bool, error) {
		informer, err := c.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if err != nil {
			if !logged && ctx.Err() == nil {
				logged = true
				a.opts.Log.Error(err, "Cannot watch yet; retrying", "kind", fmt.Sprintf("%T", object))
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

func (a *Agent) onPod(ctx context.Context, old, obj any) {
	pod := obj.(*corev1.Pod)
	var hasSandbox bool
	a.state.update(ctx, func(now time.Time, n *node.Node) {
		n.SetPod(now, pod)
		hasSandbox = n.HasSandbox(types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name})
	})
	if before, ok := old.(*corev1.Pod); ok {
		a.countUnannounced(before, pod, hasSandbox)
	}
}

// countUnannounced counts a pod that has started, as its status shows now, if its address was not announced before. The
// announcer counts the others.
func (a *Agent) countUnannounced(old, now *corev1.Pod, hasSandbox bool) {
	if !policy.IsPeer(now) || len(policy.PodAddresses(old)) > 0 {
		return
	}
	switch {
	case a.announcer == nil:
		a.metrics.unknown.WithLabelValues("no_stream").Inc()
	case !hasSandbox:
		a.metrics.unknown.WithLabelValues("no_nri").Inc()
	}
}

func (a *Agent) onPodGone(ctx context.Context, obj any) {
	pod := last[*corev1.Pod](obj)
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.DeletePod(now, pod) })
}

func (a *Agent) onNamespace(ctx context.Context, _, obj any) {
	ns := obj.(*corev1.Namespace)
	terminating := ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.SetNamespace(now, ns.Name, ns.Labels, terminating) })
}

func (a *Agent) onPolicyEndpoint(ctx context.Context, _, obj any) {
	pe := obj.(*policy.Endpoint)
	var err error
	a.state.update(ctx, func(now time.Time, n *node.Node) { err = n.SetPolicyEndpoint(now, pe) })
	a.reject("PolicyEndpoint", pe, err)
}

func (a *Agent) onPolicyEndpointGone(ctx context.Context, obj any) {
	pe := last[*policy.Endpoint](obj)
	key := types.NamespacedName{Namespace: pe.Namespace, Name: pe.Name}
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.DeletePolicyEndpoint(now, key) })
	a.deleted.endpointGone()
}

func (a *Agent) onSlice(ctx context.Context, _, obj any) {
	slice := obj.(*policy.Slice)
	var err error
	a.state.update(ctx, func(now time.Time, n *node.Node) { err = n.SetSlice(now, slice) })
	a.reject("PolicyEndpointSlice", slice, err)
}

func (a *Agent) onSliceGone(ctx context.Context, obj any) {
	slice := last[*policy.Slice](obj)
	key := types.NamespacedName{Namespace: slice.Namespace, Name: slice.Name}
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.DeleteSlice(now, key) })
}

// reject logs an object that cannot be read. Its previous version stays in force.
func (a *Agent) reject(kind string, obj metav1.Object, err error) {
	if err == nil {
		return
	}
	a.metrics.rejected.WithLabelValues(kind).Inc()
	a.opts.Log.Error(err, "Cannot read an object; its previous version stays in force, and a new policy isolates its pods",
		"kind", kind, "namespace", obj.GetNamespace(), "name", obj.GetName())
}

// last returns the object of a deletion, also of one that was missed while the watch was down.
func last[T any](obj any) T {
	if gone, ok := obj.(toolscache.DeletedFinalStateUnknown); ok {
		obj = gone.Obj
	}
	return obj.(T)
}
