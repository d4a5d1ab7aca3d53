package model

import (
	"encoding/json"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Apply is the cluster after these manifests were applied to it. Objects of one name are replaced; pods of a workload that is there
// keep their names and addresses and get its new labels and ports. With prune, policies in the manifests' namespaces that are
// not among them are removed, and ClusterNetworkPolicies if the manifests have some.
func (c *Cluster) Apply(manifests *Cluster, prune bool) (*Cluster, error) {
	out := &Cluster{Offline: c.Offline, Nodes: c.Nodes, EndpointSlices: c.EndpointSlices, Addressing: c.Addressing, assumed6: c.assumed6}
	if len(c.Pods) == 0 {
		out.assumed6 = manifests.assumed6
	}
	out.Namespaces = c.applyNamespaces(manifests)
	out.Services = last(slices.Concat(c.Services, manifests.Services))
	pruned := map[string]bool{}
	if prune {
		for i := range manifests.Policies {
			pruned[manifests.Policies[i].Namespace] = true
		}
	}
	kept := slices.DeleteFunc(slices.Clone(c.Policies), func(np networkingv1.NetworkPolicy) bool { return pruned[np.Namespace] })
	out.Policies = last(slices.Concat(kept, manifests.Policies))
	out.ClusterPolicies = manifests.ClusterPolicies
	if !prune || len(manifests.ClusterPolicies) == 0 {
		out.ClusterPolicies = last(slices.Concat(c.ClusterPolicies, manifests.ClusterPolicies))
	}
	out.Pods = applyPods(c.Pods, manifests.Pods)
	out.Complete()
	return out, out.addressPods(out.Addressing)
}

// applyNamespaces replaces the namespaces that the manifests declare, and adds those that they only mention. In a live cluster the labels that
// were not applied with the namespace stay, as with kubectl apply.
func (c *Cluster) applyNamespaces(manifests *Cluster) []corev1.Namespace {
	out := slices.Clone(c.Namespaces)
	for _, ns := range manifests.Namespaces {
		i := slices.IndexFunc(out, func(o corev1.Namespace) bool { return o.Name == ns.Name })
		switch {
		case i < 0:
			out = append(out, ns)
		case ns.Kind == "": // only mentioned
		case c.Offline:
			out[i] = ns
		default:
			labels := with(out[i].Labels)
			for key := range lastApplied(&out[i]) {
				delete(labels, key)
			}
			maps.Copy(labels, ns.Labels)
			out[i].Labels = labels
		}
	}
	return out
}

// lastApplied are the labels of an object as kubectl applied it last.
func lastApplied(ns *corev1.Namespace) map[string]string {
	var applied metav1.PartialObjectMetadata
	if err := json.Unmarshal([]byte(ns.Annotations[corev1.LastAppliedConfigAnnotation]), &applied); err != nil {
		return nil
	}
	return applied.Labels
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
		out = append(out, p)
	}
	for _, p := range manifests {
		if have[p.Workload] {
			continue
		}
		if p.Invented { // in its own cluster: here another pod may have the address
			p.Pod = *p.DeepCopy()
			p.Status.PodIP, p.Status.PodIPs = "", nil
		}
		out = append(out, p)
	}
	return out
}
