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

// WorkloadOf returns the workload that a pod belongs to by its controller. A ReplicaSet that a Deployment made is known by the label that the
// Deployment gives its pods.
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
	case "Node": // a static pod: one for each node
		if name, ok := strings.CutSuffix(pod.Name, "-"+owner.Name); ok {
			w.Kind, w.Name = "Pod", name
		}
	}
	return w
}

// workloadOf returns the workload of a pod among all objects. The Job of a CronJob is known by the Job's own controller. Where the Job was not
// read it is known by its name, if there is such a CronJob.
func (m *Manifests) workloadOf(pod *corev1.Pod) Workload {
	w := WorkloadOf(pod)
	if w.Kind != "Job" {
		return w
	}
	if owner, ok := m.jobs[w]; ok {
		if owner != nil {
			w.Kind, w.Name = owner.Kind, owner.Name
		}
		return w
	}
	if match := scheduled.FindStringSubmatch(w.Name); match != nil {
		for _, t := range m.templates {
			if t.workload == (Workload{w.Namespace, "CronJob", match[1]}) {
				return t.workload
			}
		}
	}
	return w
}
