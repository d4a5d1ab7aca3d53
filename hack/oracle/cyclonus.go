package oracle

import (
	"net/netip"
	"slices"

	"github.com/mattfenwick/cyclonus/pkg/matcher"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// cyclonusJudge asks the model that cyclonus compares CNIs with.
type cyclonusJudge struct {
	*matcher.Policy
	peers  map[netip.Addr]*peerPod
	quirks []*quirk
}

func newCyclonus(c *reference.Cluster, quirks []*quirk) *cyclonusJudge {
	var policies []*networkingv1.NetworkPolicy
	for i := range c.Policies {
		policies = append(policies, &c.Policies[i])
	}
	return &cyclonusJudge{matcher.BuildNetworkPolicies(false, policies), peerPods(c), quirks}
}

func (j *cyclonusJudge) judge(d policy.Direction, f policy.Flow) verdict {
	traffic := &matcher.Traffic{
		Source: j.peer(f.Source), Destination: j.peer(f.Destination),
		ResolvedPort: int(f.Port), Protocol: protocolName(f.Protocol),
	}
	names := j.names(f)
	if len(names) > 1 && !slices.Contains(j.quirks, onePortName) {
		names = names[:1]
	}
	for _, traffic.ResolvedPortName = range names {
		if r := j.IsIngressOrEgressAllowed(traffic, d == policy.Ingress); r.IsAllowed() {
			if len(r.AllowingTargets) == 0 {
				return allowedByDefault
			}
			return verdict{allowed: true}
		}
	}
	return verdict{why: refused}
}

// names are those that the receiver gives to the port; an empty one where it gives none.
func (j *cyclonusJudge) names(f policy.Flow) []string {
	var out []string
	if p := j.peers[f.Destination]; p != nil {
		for _, c := range p.pod.Spec.Containers {
			for _, port := range c.Ports {
				if port.Name != "" && port.ContainerPort == int32(f.Port) && port.Protocol == protocolName(f.Protocol) {
					out = append(out, port.Name)
				}
			}
		}
	}
	if len(out) == 0 {
		return []string{""}
	}
	return out
}

func (j *cyclonusJudge) peer(a netip.Addr) *matcher.TrafficPeer {
	out := &matcher.TrafficPeer{IP: a.String()}
	if p := j.peers[a]; p != nil {
		out.Internal = &matcher.InternalPeer{PodLabels: p.pod.Labels, NamespaceLabels: p.namespaceLabels, Namespace: p.pod.Namespace}
	}
	return out
}

// peerPod is a pod that has an address of its own, as judges of others want to know it.
type peerPod struct {
	pod             *corev1.Pod
	namespaceLabels map[string]string
}

// peerPods finds pods by address. Those of the host network have none of their own, and those that have ended have none any more.
func peerPods(c *reference.Cluster) map[netip.Addr]*peerPod {
	out := map[netip.Addr]*peerPod{}
	for i := range c.Pods {
		p := &peerPod{pod: &c.Pods[i]}
		if p.pod.Spec.HostNetwork || p.pod.Status.Phase == corev1.PodSucceeded || p.pod.Status.Phase == corev1.PodFailed {
			continue
		}
		for j := range c.Namespaces {
			if c.Namespaces[j].Name == p.pod.Namespace {
				p.namespaceLabels = c.Namespaces[j].Labels
			}
		}
		for _, ip := range p.pod.Status.PodIPs {
			out[netip.MustParseAddr(ip.IP)] = p
		}
	}
	return out
}

func protocolName(p policy.Protocol) corev1.Protocol { return corev1.Protocol(p.String()) }
