package policy

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestPodsWithoutAnAddressOfTheirOwnAreNoPeers(t *testing.T) {
	base := corev1.Pod{Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.0.0.1"}}
	for name, change := range map[string]func(*corev1.Pod){
		"host network":   func(p *corev1.Pod) { p.Spec.HostNetwork = true },
		"succeeded":      func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded },
		"failed":         func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed },
		"no address yet": func(p *corev1.Pod) { p.Status.PodIP = "" },
	} {
		pod := base.DeepCopy()
		change(pod)
		if IsPeer(pod) {
			t.Errorf("%s: a peer", name)
		}
	}
	pending := base.DeepCopy()
	pending.Status.Phase = corev1.PodPending
	now := metav1.Now()
	pending.DeletionTimestamp = &now
	if !IsPeer(pending) {
		t.Error("a pod that is starting or terminating and has an address is a peer")
	}
}

func TestSidecarsHavePortsAndOtherInitContainersHaveNot(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	pod := &corev1.Pod{Spec: corev1.PodSpec{InitContainers: []corev1.Container{
		{Ports: []corev1.ContainerPort{{Name: "init", ContainerPort: 1}}},
		{Ports: []corev1.ContainerPort{{Name: "side", ContainerPort: 2}}, RestartPolicy: &always},
	}}}
	if ports := ContainerPorts(pod); len(ports) != 1 || ports[0] != (NamedPort{TCP, "side", 2}) {
		t.Errorf("%v", ports)
	}
}
