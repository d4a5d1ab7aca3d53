package model

import (
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scheduled matches the names of a CronJob's Jobs: its own name and the minute that the Job is for.
var scheduled = regexp.MustCompile(`^(.+)-\d{8,}$`)

// WorkloadOf finds what a pod belongs to by its controller. A ReplicaSet that a Deployment made, and a Job that a CronJob made, are
// known by their names, so that their owners need not be asked for.
func WorkloadOf(pod *corev1.Pod) Workload {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return Workload{pod.Namespace, "Pod", pod.Name}
	}
	w := Workload{pod.Namespace, owner.Kind, owner.Name}
	switch owner.Kind {
	case "ReplicaSet":
		if hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; hash != "" {
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
				w.Kind, w.Name = "Deployment", name
			}
		}
	case "Job":
		if m := scheduled.FindStringSubmatch(owner.Name); m != nil {
			w.Kind, w.Name = "CronJob", m[1]
		}
	case "Node": // a static pod: one for each node
		if name, ok := strings.CutSuffix(pod.Name, "-"+owner.Name); ok {
			w.Kind, w.Name = "Pod", name
		}
	}
	return w
}
