package agent

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// CacheOptions are those of the cache that an Agent is given: of pods only the node's, and of all objects only what is used.
func CacheOptions(nodeName string) cache.Options {
	return cache.Options{ByObject: map[client.Object]cache.ByObject{
		&corev1.Pod{}: {
			Field:     fields.OneTermEqualSelector("spec.nodeName", nodeName),
			Transform: stripPod,
		},
		&v1alpha1.PolicyEndpoint{}:      {Transform: cache.TransformStripManagedFields()},
		&v1alpha1.PolicyEndpointSlice{}: {Transform: cache.TransformStripManagedFields()},
	}}
}

func stripPod(obj any) (any, error) {
	in, ok := obj.(*corev1.Pod)
	if !ok {
		return obj, nil
	}
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: in.Namespace, Name: in.Name, UID: in.UID, ResourceVersion: in.ResourceVersion,
			Labels: in.Labels, CreationTimestamp: in.CreationTimestamp,
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
