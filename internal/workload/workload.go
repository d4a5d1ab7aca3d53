// Package workload names what a pod belongs to. Agents, the command line and reports use the same name.
package workload

import (
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Workload is a Deployment, StatefulSet, CronJob and so on, in the namespace of its pods. A pod without an owner is its own: kind Pod.
type Workload struct{ Kind, Name string }

// Of returns what a pod belongs to, by its metadata alone: no other object has to be read. A Job whose name is a CronJob's with a time counts as
// that CronJob.
func Of(pod *corev1.Pod) Workload {
	w := OfController(pod)
	if name, ok := CronJobOf(w.Name); ok && w.Kind == "Job" {
		return Workload{"CronJob", name}
	}
	return w
}

// OfController returns a pod's controller. The ReplicaSet of a Deployment counts as the Deployment, by the label that the Deployment gives its
// pods.
func OfController(pod *corev1.Pod) Workload {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return Workload{"Pod", pod.Name}
	}
	switch owner.Kind {
	case "ReplicaSet":
		if hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; hash != "" {
			if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
				return Workload{"Deployment", name}
			}
		}
	case "Node": // of a static pod: one name for those of all nodes
		if name, ok := strings.CutSuffix(pod.Name, "-"+owner.Name); ok {
			return Workload{"Pod", name}
		}
	}
	return Workload{owner.Kind, owner.Name}
}

// scheduled matches the names of a CronJob's Jobs: its own name, and the minute that the Job is for.
var scheduled = regexp.MustCompile(`^(.+)-\d{8,}$`)

// CronJobOf returns the name that a CronJob must have to make a Job of this name.
func CronJobOf(job string) (name string, ok bool) {
	m := scheduled.FindStringSubmatch(job)
	if m == nil {
		return "", false
	}
	return m[1], true
}
