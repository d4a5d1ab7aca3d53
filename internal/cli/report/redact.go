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
			for _, statuses := range [][]corev1.ContainerStatus{o.Status.InitContainerStatuses, o.Status.ContainerStatuses, o.Status.EphemeralContainerStatuses} {
				for i := range statuses {
					redactState(&statuses[i])
				}
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

// redactState drops what a container printed as its last words, and the command that a runtime quotes where it cannot be run.
func redactState(s *corev1.ContainerStatus) {
	for _, state := range []*corev1.ContainerState{&s.State, &s.LastTerminationState} {
		if state.Terminated != nil {
			state.Terminated.Message = ""
		}
		if state.Waiting != nil {
			state.Waiting.Message = ""
		}
	}
}
