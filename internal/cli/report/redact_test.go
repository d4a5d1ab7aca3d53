package report

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestNothingThatMayBeSecretIsLeft(t *testing.T) {
	const secret = "hunter2"
	container := corev1.Container{
		Name: "main", Image: "example.com/app", Command: []string{secret}, Args: []string{"--password=" + secret},
		Env:                    []corev1.EnvVar{{Name: "PASSWORD", Value: secret}},
		Ports:                  []corev1.ContainerPort{{Name: "http", ContainerPort: 80}},
		LivenessProbe:          &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{HTTPHeaders: []corev1.HTTPHeader{{Name: "Authorization", Value: secret}}}}},
		Lifecycle:              &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{secret}}}},
		TerminationMessagePath: secret,
	}
	pod := corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b", Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"note": secret}}}
	pod.Spec.Containers = []corev1.Container{container}
	pod.Spec.InitContainers = []corev1.Container{container}
	pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon(container)}}
	pod.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{Path: secret}}}}
	statuses := func() []corev1.ContainerStatus {
		return []corev1.ContainerStatus{{
			State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Message: `exec: "` + secret + `": executable file not found in $PATH`}},
			LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Message: secret}},
		}}
	}
	pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses, pod.Status.EphemeralContainerStatuses = statuses(), statuses(), statuses()
	list := &corev1.PodList{Items: []corev1.Pod{pod}}
	redact(list)
	text, err := yaml.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) {
		t.Errorf("it is left in:\n%s", text)
	}
	for _, kept := range []string{"example.com/app", "http", "app: a"} {
		if !strings.Contains(string(text), kept) {
			t.Errorf("%q is gone", kept)
		}
	}
}
