package controller

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// changed returns a handler that calls do for an object that appeared (old is nil), changed, or disappeared
// (now is nil).
func changed[T client.Object](do func(q queue, old, now *T)) handler.TypedEventHandler[T, request] {
	return handler.TypedFuncs[T, request]{
		CreateFunc: func(_ context.Context, e event.TypedCreateEvent[T], q queue) { do(q, nil, &e.Object) },
		UpdateFunc: func(_ context.Context, e event.TypedUpdateEvent[T], q queue) { do(q, &e.ObjectOld, &e.ObjectNew) },
		DeleteFunc: func(_ context.Context, e event.TypedDeleteEvent[T], q queue) { do(q, &e.Object, nil) },
	}
}

// feed gives a change to the resolver and enqueues the objects that become different. cause is the namespace of the
// object that changed. busy is how long the resolver was busy with it.
func (c *Controller) feed(q queue, input, cause string, seen time.Time, change func() resolver.Changes) (busy time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	begin := time.Now()
	c.enqueue(q, c.resolve(input, change), cause, seen)
	return time.Since(begin)
}

// nameOf is the name of an object that appeared, changed or disappeared.
func nameOf[T client.Object](old, now *T) types.NamespacedName {
	if now == nil {
		now = old
	}
	return client.ObjectKeyFromObject(*now)
}

func (c *Controller) namespaces() handler.TypedEventHandler[*corev1.Namespace, request] {
	return changed(func(q queue, old, now **corev1.Namespace) {
		if now == nil {
			c.trackNamespace((*old).Name, nil)
		} else {
			c.trackNamespace((*now).Name, (*now).Labels)
		}
		c.feed(q, "namespace", nameOf(old, now).Name, time.Time{}, func() resolver.Changes {
			if now == nil {
				return c.resolver.DeleteNamespace((*old).Name)
			}
			return c.resolver.SetNamespace((*now).Name, (*now).Labels)
		})
	})
}

func (c *Controller) pods() handler.TypedEventHandler[*corev1.Pod, request] {
	return changed(func(q queue, old, now **corev1.Pod) {
		var seen time.Time
		if now != nil && len((*now).Status.PodIPs) > 0 && (old == nil || len((*old).Status.PodIPs) == 0) {
			seen = time.Now()
		}
		c.feed(q, "pod", nameOf(old, now).Namespace, seen, func() resolver.Changes {
			if now == nil {
				return c.resolver.DeletePod(client.ObjectKeyFromObject(*old))
			}
			return c.resolver.SetPod(resolver.PodOf(*now))
		})
		c.followAgents(old, now)
		c.trackPod(old, now)
	})
}

func (c *Controller) policies() handler.TypedEventHandler[*networkingv1.NetworkPolicy, request] {
	return changed(func(_ queue, old, now **networkingv1.NetworkPolicy) {
		name := nameOf(old, now)
		var np *resolver.Source
		if now != nil {
			np = resolver.NetworkPolicy(*now)
		}
		c.edits.add(name, np)
	})
}

// endpoints enqueues a PolicyEndpoint that any client wrote, this controller included, to be compared.
func (c *Controller) endpoints() handler.TypedEventHandler[*v1alpha1.PolicyEndpoint, request] {
	return changed(func(q queue, old, now **v1alpha1.PolicyEndpoint) {
		c.trackEndpoint(old, now)
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.resolver.Started() {
			return
		}
		q.Add(request{kind: endpoint, name: nameOf(old, now)})
	})
}

// watchSlices compares a slice that any client wrote, this controller included, with what it should be.
func (c *Controller) watchSlices() handler.TypedEventHandler[*v1alpha1.PolicyEndpointSlice, request] {
	return changed(func(q queue, old, now **v1alpha1.PolicyEndpointSlice) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.resolver.Started() {
			return
		}
		if old != nil && (now == nil || (*now).UID != (*old).UID) { // deleted, or replaced while the watch was down
			name := client.ObjectKeyFromObject(*old)
			if resolver.IsSliceName(name.Name) {
				c.slices.Gone(name, &(*old).Spec)
				c.enqueueSlice(q, name, "")
			}
		}
		if now != nil {
			c.compare(q, *now)
		}
	})
}

// groupsOf lists the groups that a PolicyEndpoint refers to.
func (c *Controller) groupsOf(pe *v1alpha1.PolicyEndpoint) []policy.GroupKey {
	return policy.GroupKeys(pe.Namespace, c.shared, pe.Spec.Ingress, pe.Spec.Egress)
}
