package model

import (
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
)

// Apply is the cluster after these manifests were applied to it. Objects of one name are replaced; pods of a workload that is there
// keep their names and addresses and get its new labels and ports. With prune, policies in the manifests' namespaces that are
// not among them are removed.
func (c *Cluster) Apply(manifests *Cluster, prune bool) *Cluster {
	out := &Cluster{Offline: c.Offline, Nodes: c.Nodes, EndpointSlices: c.EndpointSlices}
	out.Namespaces = last(slices.Concat(c.Namespaces, declared(c, manifests)))
	out.Services = last(slices.Concat(c.Services, manifests.Services))
	pruned := map[string]bool{}
	if prune {
		for i := range manifests.Policies {
			pruned[manifests.Policies[i].Namespace] = true
		}
	}
	kept := slices.DeleteFunc(slices.Clone(c.Policies), func(np networkingv1.NetworkPolicy) bool { return pruned[np.Namespace] })
	out.Policies = last(slices.Concat(kept, manifests.Policies))
	out.Pods = applyPods(c.Pods, manifests.Pods)
	out.Complete()
	return out
}

// declared are the manifests' namespaces, without those that are only mentioned there and known here.
func declared(c, manifests *Cluster) (out []corev1.Namespace) {
	for _, ns := range manifests.Namespaces {
		if len(ns.Labels) > 1 || len(ns.Annotations) > 0 || c.Namespace(ns.Name) == nil {
			out = append(out, ns)
		}
	}
	return out
}

// ownLabels are those that controllers give each pod of a workload for itself: manifests of the workload do not say them.
var ownLabels = []string{
	appsv1.DefaultDeploymentUniqueLabelKey, appsv1.ControllerRevisionHashLabelKey, appsv1.StatefulSetPodNameLabel, appsv1.PodIndexLabel,
	batchv1.JobNameLabel, "job-name", batchv1.ControllerUidLabel, "controller-uid", batchv1.JobCompletionIndexAnnotation,
}

func applyPods(pods, manifests []Pod) []Pod {
	next := map[Workload]*Pod{}
	named := map[string]*Pod{}
	for i := range manifests {
		next[manifests[i].Workload] = &manifests[i]
		named[manifests[i].Key()] = &manifests[i]
	}
	have := map[Workload]bool{}
	taken := map[string]bool{}
	var out []Pod
	for _, p := range pods {
		have[p.Workload] = true
		if n := next[p.Workload]; n != nil {
			if same := named[p.Key()]; same != nil && same.Workload == p.Workload {
				n = same // what it says may be about this pod alone
			}
			status := p.Status
			name := p.Name
			labels := with(n.Labels)
			for _, key := range ownLabels {
				delete(labels, key)
				if v, ok := p.Labels[key]; ok {
					labels[key] = v
				}
			}
			p.Pod = *n.DeepCopy()
			p.Name, p.Labels, p.Status = name, labels, status
		}
		for _, a := range policy.PodAddresses(&p.Pod) {
			taken[a.String()] = true
		}
		out = append(out, p)
	}
	for _, p := range manifests {
		if have[p.Workload] {
			continue
		}
		if p.Synthetic && taken[p.Status.PodIP] { // both were read from manifests: another address is as good
			p.Pod = *p.DeepCopy()
			p.Status.PodIP, p.Status.PodIPs = "", nil
		}
		out = append(out, p)
	}
	c := Cluster{Pods: out}
	_ = c.addressPods()
	return c.Pods
}
