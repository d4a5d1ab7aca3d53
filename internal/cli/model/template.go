package model

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// nodes is how many pods a DaemonSet is read as.
const nodes = 2

// template is a workload of a manifest.
type template struct {
	workload Workload
	labels   map[string]string
	spec     corev1.PodSpec
	replicas int
	// owner is the controller of the workload's own object, nil where it has none.
	owner *metav1.OwnerReference
	// old: a ReplicaSet of an earlier revision.
	old bool
}

// custom is a workload of a kind that Kubernetes does not have itself, such as a Rollout, with a pod template where Kubernetes' own have theirs.
type custom struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Replicas *int32                  `json:"replicas"`
		Template *corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

// customWorkload reads one; nil for an object that is none.
func customWorkload(t metav1.TypeMeta, raw []byte) *custom {
	if !bytes.Contains(raw, []byte(`"containers"`)) {
		return nil
	}
	w := &custom{}
	if json.Unmarshal(raw, w) != nil || w.Spec.Template == nil || len(w.Spec.Template.Spec.Containers) == 0 || w.Name == "" {
		return nil
	}
	w.TypeMeta = t
	return w
}

// templateOf a workload's object, and the controller that made the object; nil where the object has no template.
func templateOf(object metav1.Object) (*template, *metav1.OwnerReference) {
	newTemplate := func(kind string, replicas *int32, t *corev1.PodTemplateSpec) *template {
		n := 1
		if replicas != nil {
			n = max(1, int(*replicas)) // scaled to zero, it is judged as one pod would be
		}
		return &template{workload: Workload{object.GetNamespace(), kind, object.GetName()}, labels: t.Labels, spec: t.Spec, replicas: n}
	}
	var t *template
	switch o := object.(type) {
	case *appsv1.Deployment:
		t = newTemplate("Deployment", o.Spec.Replicas, &o.Spec.Template)
	case *appsv1.ReplicaSet:
		t = newTemplate("ReplicaSet", o.Spec.Replicas, &o.Spec.Template)
		t.old = o.Spec.Replicas != nil && *o.Spec.Replicas == 0
	case *corev1.ReplicationController:
		if o.Spec.Template == nil {
			return nil, nil
		}
		t = newTemplate("ReplicationController", o.Spec.Replicas, o.Spec.Template)
	case *appsv1.StatefulSet:
		t = newTemplate("StatefulSet", o.Spec.Replicas, &o.Spec.Template)
	case *appsv1.DaemonSet:
		n := int32(nodes)
		t = newTemplate("DaemonSet", &n, &o.Spec.Template)
	case *batchv1.Job:
		t = job(newTemplate("Job", o.Spec.Parallelism, &o.Spec.Template))
	case *batchv1.CronJob:
		t = job(newTemplate("CronJob", o.Spec.JobTemplate.Spec.Parallelism, &o.Spec.JobTemplate.Spec.Template))
	case *custom:
		t = newTemplate(o.Kind, o.Spec.Replicas, o.Spec.Template)
	default:
		return nil, nil
	}
	return t, metav1.GetControllerOf(object)
}

// job adds the labels that the Job controller gives its pods.
func job(t *template) *template {
	t.labels = with(t.labels, batchv1.JobNameLabel, t.workload.Name, "job-name", t.workload.Name)
	return t
}

// pods that the workload's controller would make.
func (t *template) pods() []Pod {
	var out []Pod
	for i := range t.replicas {
		p := Pod{Workload: t.workload, Invented: true}
		p.Namespace, p.Name = t.workload.Namespace, fmt.Sprintf("%s-%d", t.workload.Name, i)
		p.Labels, p.Spec = t.labels, t.spec
		if t.workload.Kind == "StatefulSet" {
			p.Labels = with(t.labels, appsv1.StatefulSetPodNameLabel, p.Name, appsv1.PodIndexLabel, strconv.Itoa(i))
		}
		p.Status.Phase = corev1.PodRunning
		out = append(out, p)
	}
	return out
}

func with(labels map[string]string, pairs ...string) map[string]string {
	out := maps.Clone(labels)
	if out == nil {
		out = map[string]string{}
	}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i]] = pairs[i+1]
	}
	return out
}
