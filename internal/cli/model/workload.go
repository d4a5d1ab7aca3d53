package model

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/plain"
	"github.com/kidoban/kidoban/internal/workload"
)

// WorkloadOf returns the workload that a pod belongs to by its controller. A ReplicaSet that a Deployment made is known by the label that the
// Deployment gives its pods. The API server does not check the name of an owner, so its control characters are replaced here.
func WorkloadOf(pod *corev1.Pod) Workload {
	w := workload.OfController(pod)
	return Workload{pod.Namespace, plain.Line(w.Kind), plain.Line(w.Name)}
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
	if name, ok := workload.CronJobOf(w.Name); ok {
		for _, t := range m.templates {
			if t.workload == (Workload{w.Namespace, "CronJob", name}) {
				return t.workload
			}
		}
	}
	return w
}
