package oracle

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// knpJudge asks the engine of kube-network-policies.
type knpJudge struct {
	*networkpolicy.StandardNetworkPolicy
	peers  map[netip.Addr]*api.PodInfo
	quirks []*quirk
}

func newKubeNetworkPolicies(c *reference.NetworkPolicies, quirks []*quirk) *knpJudge {
	factory := informers.NewSharedInformerFactory(nil, 0) // never started: its stores are filled here
	policies := factory.Networking().V1().NetworkPolicies()
	for i := range c.Policies {
		if err := policies.Informer().GetIndexer().Add(&c.Policies[i]); err != nil {
			panic(err) // an object without metadata, which is none
		}
	}
	j := &knpJudge{
		networkpolicy.NewStandardNetworkPolicy("", factory.Core().V1().Namespaces(), factory.Core().V1().Pods(), policies),
		map[netip.Addr]*api.PodInfo{}, quirks,
	}
	for a, p := range peerPods(c) {
		j.peers[a] = api.NewPodInfo(p.pod, p.namespaceLabels, nil, "")
	}
	return j
}

func (j *knpJudge) judge(d policy.Direction, f policy.Flow) verdict {
	packet := &network.Packet{
		Family: corev1.IPv4Protocol, SrcIP: f.Source.AsSlice(), DstIP: f.Destination.AsSlice(),
		Proto: protocolName(f.Protocol), DstPort: int(f.Port),
	}
	if f.Source.Is6() {
		packet.Family = corev1.IPv6Protocol
	}
	if packet.DstPort == 0 && slices.Contains(j.quirks, portZero) {
		packet.DstPort = -1
	}
	evaluate := j.EvaluateEgress
	if d == policy.Ingress {
		evaluate = j.EvaluateIngress
	}
	v, err := evaluate(context.Background(), packet, j.peers[f.Source], j.peers[f.Destination])
	if err != nil {
		return verdict{false, err.Error()}
	}
	return verdict{allowed: v != api.VerdictDeny}
}
