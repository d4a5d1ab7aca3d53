package flows

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/replay"
)

// ObjectsOf a cluster, for a recording. They have the fields that verdicts and recommendations depend on, and no others: pods' environment and
// arguments stay where they are.
func ObjectsOf(c *model.Cluster) *replay.Objects {
	out := &replay.Objects{}
	for i := range c.Policies {
		np := &c.Policies[i]
		is := networkingv1.NetworkPolicy{ObjectMeta: metaOf(&np.ObjectMeta), Spec: np.Spec}
		if np.Kind == application.Kind { // its domain names are in an annotation
			is.Kind, is.Annotations = np.Kind, np.Annotations
		}
		out.NetworkPolicies = append(out.NetworkPolicies, is)
	}
	for i := range c.ClusterPolicies {
		p := &c.ClusterPolicies[i]
		out.ClusterPolicies = append(out.ClusterPolicies, cnp.ClusterNetworkPolicy{ObjectMeta: metaOf(&p.ObjectMeta), Spec: p.Spec})
	}
	for i := range c.Namespaces {
		out.Namespaces = append(out.Namespaces, corev1.Namespace{ObjectMeta: metaOf(&c.Namespaces[i].ObjectMeta)})
	}
	for i := range c.Nodes {
		n := &c.Nodes[i]
		out.Nodes = append(out.Nodes, corev1.Node{ObjectMeta: metaOf(&n.ObjectMeta), Spec: corev1.NodeSpec{PodCIDR: n.Spec.PodCIDR, PodCIDRs: n.Spec.PodCIDRs},
			Status: corev1.NodeStatus{Addresses: n.Status.Addresses}})
	}
	for i := range c.Services {
		s := &c.Services[i]
		out.Services = append(out.Services, corev1.Service{ObjectMeta: metaOf(&s.ObjectMeta), Spec: corev1.ServiceSpec{Type: s.Spec.Type, Selector: s.Spec.Selector,
			ClusterIP: s.Spec.ClusterIP, ClusterIPs: s.Spec.ClusterIPs, Ports: s.Spec.Ports}})
	}
	for i := range c.Pods {
		out.Pods = append(out.Pods, podOf(&c.Pods[i]))
	}
	return out
}

// podOf a pod, with the workload as its controller.
func podOf(p *model.Pod) corev1.Pod {
	out := corev1.Pod{ObjectMeta: metaOf(&p.ObjectMeta)}
	out.OwnerReferences = p.OwnerReferences
	if len(out.OwnerReferences) == 0 && p.Workload.Kind != "Pod" { // made from a template
		out.OwnerReferences = []metav1.OwnerReference{{Kind: p.Workload.Kind, Name: p.Workload.Name, Controller: new(true)}}
	}
	out.Spec.NodeName, out.Spec.HostNetwork = p.Spec.NodeName, p.Spec.HostNetwork
	out.Spec.Containers, out.Spec.InitContainers = containersOf(p.Spec.Containers), containersOf(p.Spec.InitContainers)
	out.Status.Phase = p.Status.Phase
	if !p.Invented {
		out.Status.PodIP, out.Status.PodIPs = p.Status.PodIP, p.Status.PodIPs
	}
	return out
}

func containersOf(containers []corev1.Container) (out []corev1.Container) {
	for i := range containers {
		c := &containers[i]
		out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports, RestartPolicy: c.RestartPolicy})
	}
	return out
}

func metaOf(m *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, Labels: m.Labels, CreationTimestamp: m.CreationTimestamp}
}
