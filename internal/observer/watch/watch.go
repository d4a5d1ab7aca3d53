// Package watch fills the observer's directory from watches of the API server.
package watch

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/observer/directory"
)

// CacheOptions of a cache that keeps of each object what the directory needs.
func CacheOptions() cache.Options {
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}:       {Transform: stripPod},
			&corev1.Namespace{}: {Transform: stripNamespace},
			&corev1.Node{}:      {Transform: stripNode},
			&corev1.Service{}:   {Transform: stripService},
		},
	}
}

func stripPod(in any) (any, error) {
	pod, ok := in.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("%T is not a Pod", in)
	}
	out := &corev1.Pod{ObjectMeta: identity(&pod.ObjectMeta)}
	out.OwnerReferences = pod.OwnerReferences
	out.Spec.HostNetwork, out.Spec.NodeName, out.Spec.ServiceAccountName = pod.Spec.HostNetwork, pod.Spec.NodeName, pod.Spec.ServiceAccountName
	out.Spec.Containers, out.Spec.InitContainers = stripContainers(pod.Spec.Containers), stripContainers(pod.Spec.InitContainers)
	out.Status.Phase, out.Status.PodIPs = pod.Status.Phase, pod.Status.PodIPs
	for _, c := range pod.Status.ContainerStatuses {
		out.Status.ContainerStatuses = append(out.Status.ContainerStatuses, corev1.ContainerStatus{State: corev1.ContainerState{Terminated: c.State.Terminated}})
	}
	return out, nil
}

func stripContainers(in []corev1.Container) (out []corev1.Container) {
	for i := range in {
		if len(in[i].Ports) > 0 {
			out = append(out, corev1.Container{Ports: in[i].Ports})
		}
	}
	return out
}

func stripNamespace(in any) (any, error) {
	namespace, ok := in.(*corev1.Namespace)
	if !ok {
		return nil, fmt.Errorf("%T is not a Namespace", in)
	}
	return &corev1.Namespace{ObjectMeta: identity(&namespace.ObjectMeta)}, nil
}

func stripNode(in any) (any, error) {
	node, ok := in.(*corev1.Node)
	if !ok {
		return nil, fmt.Errorf("%T is not a Node", in)
	}
	out := &corev1.Node{ObjectMeta: identity(&node.ObjectMeta)}
	out.Labels = nil
	out.Status.Addresses = node.Status.Addresses
	return out, nil
}

func stripService(in any) (any, error) {
	service, ok := in.(*corev1.Service)
	if !ok {
		return nil, fmt.Errorf("%T is not a Service", in)
	}
	out := &corev1.Service{ObjectMeta: identity(&service.ObjectMeta)}
	out.Labels = nil
	out.Spec.ClusterIP, out.Spec.ClusterIPs, out.Spec.ExternalIPs = service.Spec.ClusterIP, service.Spec.ClusterIPs, service.Spec.ExternalIPs
	out.Status.LoadBalancer = service.Status.LoadBalancer
	return out, nil
}

func identity(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, CreationTimestamp: m.CreationTimestamp, Labels: m.Labels}
}

// Add makes the directory follow the cache. The function that it returns fails until all that there is has been read.
func Add(ctx context.Context, caches cache.Cache, d *directory.Directory) (synced func() error, err error) {
	var all []clientcache.ResourceEventHandlerRegistration
	add := func(object client.Object, handlers clientcache.ResourceEventHandler) {
		if err != nil {
			return
		}
		informer, e := caches.GetInformer(ctx, object, cache.BlockUntilSynced(false))
		if e != nil {
			err = fmt.Errorf("watch %T: %w", object, e)
			return
		}
		registration, e := informer.AddEventHandler(handlers)
		if e != nil {
			err = fmt.Errorf("watch %T: %w", object, e)
			return
		}
		all = append(all, registration)
	}
	add(&corev1.Namespace{}, follow(
		func(n *corev1.Namespace) { d.SetNamespace(n.Name, n.Labels, time.Now()) },
		func(n *corev1.Namespace) { d.DeleteNamespace(n.Name) }))
	add(&corev1.Node{}, follow(d.SetNode, func(n *corev1.Node) { d.DeleteNode(n.Name) }))
	add(&corev1.Service{}, follow(
		func(s *corev1.Service) { d.SetService(s, time.Now()) },
		func(s *corev1.Service) { d.DeleteService(s.Namespace, s.Name, time.Now()) }))
	add(&corev1.Pod{}, follow(
		func(p *corev1.Pod) { d.SetPod(p, time.Now()) },
		func(p *corev1.Pod) { d.DeletePod(p.UID, time.Now()) }))
	return func() error {
		for _, r := range all {
			if !r.HasSynced() {
				return fmt.Errorf("the pods, Services, namespaces and nodes are not all read yet")
			}
		}
		return nil
	}, err
}

// follow returns handlers that pass on each object and each end.
func follow[T client.Object](set, end func(T)) clientcache.ResourceEventHandler {
	return clientcache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { with(object, set) },
		UpdateFunc: func(_, object any) { with(object, set) },
		DeleteFunc: func(object any) {
			if last, ok := object.(clientcache.DeletedFinalStateUnknown); ok {
				object = last.Obj
			}
			with(object, end)
		},
	}
}

func with[T client.Object](object any, do func(T)) {
	if v, ok := object.(T); ok {
		do(v)
	}
}
