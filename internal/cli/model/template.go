package model

import (
	"fmt"
	"maps"
	"net/netip"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// Synthetic is the block that pods without an address are given one of: one for benchmarks (RFC 2544), which no cluster uses
// and few policies name.
var Synthetic = netip.MustParsePrefix("198.18.0.0/15")

// nodes is how many pods a DaemonSet is read as.
const nodes = 2

// template is a workload of a manifest.
type template struct {
	workload Workload
	labels   map[string]string
	spec     corev1.PodSpec
	replicas int
}

func newTemplate(o metav1.Object, kind string, replicas *int32, t *corev1.PodTemplateSpec) *template {
	n := 1
	if replicas != nil {
		n = int(*replicas)
	}
	return &template{workload: Workload{o.GetNamespace(), kind, o.GetName()}, labels: t.Labels, spec: t.Spec, replicas: n}
}

func fromDeployment(o *appsv1.Deployment) *template {
	return newTemplate(o, "Deployment", o.Spec.Replicas, &o.Spec.Template)
}

func fromReplicaSet(o *appsv1.ReplicaSet) *template {
	if metav1.GetControllerOf(o) != nil {
		return nil // its Deployment says more
	}
	return newTemplate(o, "ReplicaSet", o.Spec.Replicas, &o.Spec.Template)
}

func fromReplicationController(o *corev1.ReplicationController) *template {
	if o.Spec.Template == nil {
		return nil
	}
	return newTemplate(o, "ReplicationController", o.Spec.Replicas, o.Spec.Template)
}

func fromStatefulSet(o *appsv1.StatefulSet) *template {
	return newTemplate(o, "StatefulSet", o.Spec.Replicas, &o.Spec.Template)
}

func fromDaemonSet(o *appsv1.DaemonSet) *template {
	n := int32(nodes)
	return newTemplate(o, "DaemonSet", &n, &o.Spec.Template)
}

func fromJob(o *batchv1.Job) *template {
	if metav1.GetControllerOf(o) != nil {
		return nil // its CronJob says more
	}
	return job(newTemplate(o, "Job", o.Spec.Parallelism, &o.Spec.Template))
}

func fromCronJob(o *batchv1.CronJob) *template {
	return job(newTemplate(o, "CronJob", o.Spec.JobTemplate.Spec.Parallelism, &o.Spec.JobTemplate.Spec.Template))
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
		p := Pod{Workload: t.workload, Synthetic: true}
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

// addressPods gives an address to each pod that has none and could have one.
func (c *Cluster) addressPods() error {
	taken := map[netip.Addr]bool{}
	for i := range c.Pods {
		for _, a := range policy.PodAddresses(&c.Pods[i].Pod) {
			taken[a] = true
		}
	}
	next := Synthetic.Addr().Next()
	for i := range c.Pods {
		p := &c.Pods[i]
		if p.Spec.HostNetwork || len(policy.PodAddresses(&p.Pod)) > 0 || !p.Synthetic {
			continue
		}
		for taken[next] {
			next = next.Next()
		}
		if !Synthetic.Contains(next) {
			return fmt.Errorf("more pods than %s has addresses for", Synthetic)
		}
		p.Status.PodIP = next.String()
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
		next = next.Next()
	}
	return nil
}

// Synthetic6 is the block of the same use for IPv6 (RFC 5180).
var Synthetic6 = netip.MustParsePrefix("2001:2::/48")

// AddressFamilies gives pods whose addresses mean nothing outside one of each of these families.
func (c *Cluster) AddressFamilies(ipv4, ipv6 bool) {
	for i := range c.Pods {
		p := &c.Pods[i]
		a, err := netip.ParseAddr(p.Status.PodIP)
		if err != nil || !p.Synthetic || !Synthetic.Contains(a) {
			continue
		}
		p.Status.PodIPs = nil
		if ipv4 {
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a.String()})
		}
		if ipv6 {
			b, a4 := Synthetic6.Addr().As16(), a.As4()
			copy(b[12:], a4[:])
			p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: netip.AddrFrom16(b).String()})
		}
		p.Status.PodIP = p.Status.PodIPs[0].IP
	}
}
