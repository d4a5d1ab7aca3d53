package agent

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// CacheOptions are those of the cache that an Agent is given: ClusterPolicyEndpoints and the node's pods, and of these only what is used.
func CacheOptions(nodeName string) cache.Options {
	return cache.Options{
		DefaultWatchErrorHandler: watches.handle,
		DefaultTransform:         cache.TransformStripManagedFields(), // see strip
		ByObject: map[client.Object]cache.ByObject{
			&corev1.Pod{}: {
				Field:     fields.OneTermEqualSelector("spec.nodeName", nodeName),
				Transform: stripPod,
			},
		},
	}
}

// NamespaceCaches makes the caches of single namespaces that an Agent watches while it has pods there: of what is in
// them, and of the Namespace itself. shared is kidoban's own namespace. They share the manager's connection.
func NamespaceCaches(mgr manager.Manager, shared string) func(namespace string) (cache.Cache, error) {
	return func(namespace string) (cache.Cache, error) {
		return cache.New(mgr.GetConfig(), cache.Options{
			HTTPClient:               mgr.GetHTTPClient(),
			Scheme:                   mgr.GetScheme(),
			Mapper:                   mgr.GetRESTMapper(),
			DefaultNamespaces:        map[string]cache.Config{namespace: {}},
			DefaultTransform:         func(obj any) (any, error) { return strip(obj, shared), nil },
			DefaultWatchErrorHandler: watches.handle,
			ByObject: map[client.Object]cache.ByObject{
				&corev1.Namespace{}: {Field: fields.OneTermEqualSelector("metadata.name", namespace)},
			},
		})
	}
}

// strip keeps of an object what is used; of a slice, a policy.Slice, which is what onSlice receives, and of a PolicyEndpoint, a
// policy.Endpoint. It is for objects of all kinds: a transform for one kind would make a cache look the kind up at the API server, which may be
// away. An object may come here twice.
func strip(obj any, shared string) any {
	switch in := obj.(type) {
	case *v1alpha1.PolicyEndpointSlice:
		return policy.ReadSlice(in)
	case *v1alpha1.PolicyEndpoint:
		return policy.ReadEndpoint(in, shared)
	case client.Object:
		in.SetManagedFields(nil)
	}
	return obj
}

func stripPod(obj any) (any, error) {
	in, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in.Namespace, Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
			Labels: in.Labels, CreationTimestamp: in.CreationTimestamp, DeletionTimestamp: in.DeletionTimestamp, OwnerReferences: in.OwnerReferences,
		},
		Spec:   corev1.PodSpec{HostNetwork: in.Spec.HostNetwork, Containers: stripContainers(in.Spec.Containers), InitContainers: stripContainers(in.Spec.InitContainers)},
		Status: corev1.PodStatus{Phase: in.Status.Phase, PodIP: in.Status.PodIP, PodIPs: in.Status.PodIPs},
	}
	return out, nil
}

func stripContainers(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range in {
		if len(in[i].Ports) > 0 {
			out = append(out, corev1.Container{Ports: in[i].Ports, RestartPolicy: in[i].RestartPolicy})
		}
	}
	return out
}
