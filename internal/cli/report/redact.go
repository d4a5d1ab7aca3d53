package report

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// redact takes out of a list what may hold secrets.
func redact(list client.ObjectList) {
	_ = apimeta.EachListItem(list, func(o runtime.Object) error {
		if object, ok := o.(client.Object); ok {
			object.SetManagedFields(nil)
			object.SetAnnotations(nil)
		}
		switch o := o.(type) {
		case *corev1.Pod:
			redactPod(&o.Spec)
			for i := range o.Status.ContainerStatuses {
				redactState(&o.Status.ContainerStatuses[i])
			}
			for i := range o.Status.InitContainerStatuses {
				redactState(&o.Status.InitContainerStatuses[i])
			}
		case *appsv1.Deployment:
			o.Spec.Template.Annotations = nil
			redactPod(&o.Spec.Template.Spec)
		case *appsv1.DaemonSet:
			o.Spec.Template.Annotations = nil
			redactPod(&o.Spec.Template.Spec)
		}
		return nil
	})
}

// redactPod keeps of containers their names, images, ports and flags of security.
func redactPod(spec *corev1.PodSpec) {
	spec.Volumes, spec.ImagePullSecrets = nil, nil
	for _, containers := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			c := &containers[i]
			*c = corev1.Container{
				Name: c.Name, Image: c.Image, Ports: c.Ports, Resources: c.Resources, SecurityContext: c.SecurityContext, RestartPolicy: c.RestartPolicy,
			}
		}
	}
	spec.EphemeralContainers = nil
}

// redactState drops what a container printed as its last words.
func redactState(s *corev1.ContainerStatus) {
	for _, t := range []*corev1.ContainerStateTerminated{s.State.Terminated, s.LastTerminationState.Terminated} {
		if t != nil {
			t.Message = ""
		}
	}
}
