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

// scheduled matches the names of a CronJob's Jobs: its own name, and the minute that the Job is for.
var scheduled = regexp.MustCompile(`^(.+)-\d{8,}$`)

// Of returns what a pod belongs to, by its controller. Deployments and CronJobs are recognised by the names of their ReplicaSets and Jobs,
// so that no other object has to be read. It uses the pod's metadata only.
func Of(pod *corev1.Pod) Workload {
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
	case "Job":
		if m := scheduled.FindStringSubmatch(owner.Name); m != nil {
			return Workload{"CronJob", m[1]}
		}
	case "Node": // of a static pod: one name for those of all nodes
		if name, ok := strings.CutSuffix(pod.Name, "-"+owner.Name); ok {
			return Workload{"Pod", name}
		}
	}
	return Workload{owner.Kind, owner.Name}
}
