package oracle

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
	"github.com/kidoban/kidoban/internal/replay"
)

// RecordedVerdict is what the evaluators of kube-network-policies decide about recorded traffic.
type RecordedVerdict struct {
	From        replay.Party        `json:"from"`
	To          replay.Party        `json:"to"`
	Source      netip.Addr          `json:"source"`
	Destination netip.Addr          `json:"destination"`
	Protocol    string              `json:"protocol"`
	Port        uint16              `json:"port"`
	Connections uint64              `json:"connections"`
	Verdict     observerapi.Verdict `json:"verdict"` // when it was recorded
	// Allowed by the policies. It means nothing where the recording lacks a part of the flow, which Lacks names.
	Allowed bool   `json:"allowed"`
	Lacks   string `json:"lacks,omitempty"`
}

// JudgeRecorded asks kube-network-policies about traffic, which is not late replies, with the labels and addresses that it had when it was recorded.
func JudgeRecorded(t *replay.Traffic, nodes []corev1.Node, policies replay.Policies) RecordedVerdict {
	out := RecordedVerdict{From: replay.PartyOf(t.Source), To: replay.PartyOf(t.Destination), Source: t.Source.Address, Destination: t.Destination.Address,
		Protocol: t.Protocol, Port: t.Port, Connections: t.Connections, Verdict: t.Verdict}
	protocol, ok := policy.ParseProtocol(t.Protocol)
	if !ok || t.Port == 0 && protocol.HasPorts() {
		out.Lacks = "protocol or port"
		return out
	}
	c := &reference.Cluster{Nodes: withoutNames(nodes), ClusterPolicies: policies.ClusterPolicies}
	c.Policies = policies.NetworkPolicies
	for _, e := range [...]*observerapi.End{t.Source, t.Destination} {
		switch {
		case e.Hidden || !e.Address.IsValid():
			out.Lacks = "address"
		case e.Namespace == "" || e.IsNode:
		case e.NamespaceLabels == nil:
			out.Lacks = "labels"
		default:
			addRecorded(c, e)
		}
	}
	if out.Lacks == "" {
		adapted, _ := adapt(enforcedOf(c), knpQuirks)
		flow := policy.Flow{Source: t.Source.Address, Destination: t.Destination.Address, Protocol: protocol, Port: t.Port}
		j := newKubeNetworkPolicies(adapted, knpQuirks)
		out.Allowed = flow.Source == flow.Destination || j.judge(policy.Egress, flow).allowed && j.judge(policy.Ingress, flow).allowed
	}
	return out
}

// withoutNames are nodes with their addresses alone: a Node also lists its names there.
func withoutNames(nodes []corev1.Node) (out []corev1.Node) {
	for i := range nodes {
		n := *nodes[i].DeepCopy()
		n.Status.Addresses = slices.DeleteFunc(n.Status.Addresses, func(a corev1.NodeAddress) bool {
			_, err := netip.ParseAddr(a.Address)
			return err != nil
		})
		out = append(out, n)
	}
	return out
}

// addRecorded adds the pod that an end was.
func addRecorded(c *reference.Cluster, e *observerapi.End) {
	pod := corev1.Pod{}
	pod.Namespace, pod.Name, pod.UID, pod.Labels, pod.Spec.NodeName = e.Namespace, e.Pod, types.UID(e.UID), e.Labels, e.Node
	container := corev1.Container{}
	for _, p := range e.NamedPorts {
		container.Ports = append(container.Ports, corev1.ContainerPort{Name: p.Name, Protocol: corev1.Protocol(p.Protocol), ContainerPort: int32(p.Number)})
	}
	pod.Spec.Containers = []corev1.Container{container}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: e.Address.String(), PodIPs: []corev1.PodIP{{IP: e.Address.String()}}}
	c.Pods = append(c.Pods, pod)
	if len(c.Namespaces) == 0 || c.Namespaces[0].Name != e.Namespace {
		ns := corev1.Namespace{}
		ns.Name, ns.Labels = e.Namespace, e.NamespaceLabels
		c.Namespaces = append(c.Namespaces, ns)
	}
}
