package oracle

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"sigs.k8s.io/kube-network-policies/pkg/api"
	"sigs.k8s.io/kube-network-policies/pkg/network"
	"sigs.k8s.io/kube-network-policies/pkg/networkpolicy"
	clusternetworkpolicy "sigs.k8s.io/kube-network-policies/plugins/npa-v1alpha2"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	clusterinformers "sigs.k8s.io/network-policy-api/pkg/client/informers/externalversions"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// knpJudge asks the evaluators of kube-network-policies, tier by tier.
type knpJudge struct {
	admin, baseline *clusternetworkpolicy.ClusterNetworkPolicy
	networkPolicies [2]*networkpolicy.StandardNetworkPolicy // by direction, see otherDirection
	peers           map[netip.Addr]*api.PodInfo
	notAPod         *api.PodInfo // see closedRules
	own             ownNode
	quirks          []*quirk
}

func newKubeNetworkPolicies(c *reference.Cluster, quirks []*quirk) *knpJudge {
	j := &knpJudge{peers: map[netip.Addr]*api.PodInfo{}, own: ownNodeOf(c), quirks: quirks}
	for a, p := range peerPods(c) {
		j.peers[a] = api.NewPodInfo(p.pod, p.namespaceLabels, nil, "")
	}
	for _, d := range policy.Directions {
		j.networkPolicies[d] = standardEvaluator(c, func(np *networkingv1.NetworkPolicy) bool {
			return !slices.Contains(quirks, otherDirection) || slices.Contains(np.Spec.PolicyTypes, networkingv1.PolicyType(d.String()))
		})
	}
	if slices.ContainsFunc(c.Namespaces, isInside) {
		j.notAPod = api.NewPodInfo(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "none", Namespace: "none"}}, nil, nil, "")
	}
	core := informers.NewSharedInformerFactory(nil, 0) // never started: its stores are filled here
	nodes := core.Core().V1().Nodes()
	for i := range c.Nodes {
		mustAdd(nodes.Informer().GetIndexer().Add(&c.Nodes[i]))
	}
	policies := clusterinformers.NewSharedInformerFactory(nil, 0).Policy().V1alpha2().ClusterNetworkPolicies()
	for i := range c.ClusterPolicies {
		mustAdd(policies.Informer().GetIndexer().Add(&c.ClusterPolicies[i]))
	}
	j.admin = clusternetworkpolicy.NewClusterNetworkPolicy(cnp.AdminTier, policies, nil, nodes.Lister())
	j.baseline = clusternetworkpolicy.NewClusterNetworkPolicy(cnp.BaselineTier, policies, nil, nodes.Lister())
	return j
}

// standardEvaluator evaluates those NetworkPolicies that it is to have.
func standardEvaluator(c *reference.Cluster, has func(*networkingv1.NetworkPolicy) bool) *networkpolicy.StandardNetworkPolicy {
	factory := informers.NewSharedInformerFactory(nil, 0)
	policies := factory.Networking().V1().NetworkPolicies()
	for i := range c.Policies {
		if has(&c.Policies[i]) {
			mustAdd(policies.Informer().GetIndexer().Add(&c.Policies[i]))
		}
	}
	return networkpolicy.NewStandardNetworkPolicy("", factory.Core().V1().Namespaces(), factory.Core().V1().Pods(), policies)
}

// mustAdd: only an object without metadata cannot be added, and none is.
func mustAdd(err error) {
	if err != nil {
		panic(err)
	}
}

func (j *knpJudge) judge(d policy.Direction, f policy.Flow) verdict {
	packet := &network.Packet{
		Family: corev1.IPv4Protocol, SrcIP: f.Source.AsSlice(), DstIP: f.Destination.AsSlice(),
		Proto: protocolName(f.Protocol), DstPort: int(f.Port),
	}
	if f.Source.Is6() {
		packet.Family = corev1.IPv6Protocol
	}
	_, own := j.own.of(d, f)
	if own = own && slices.Contains(j.quirks, nodeTraffic); own && d == policy.Ingress {
		return allowedByDefault
	}
	for _, e := range [...]api.PolicyEvaluator{j.admin, j.networkPolicies[d], j.baseline} {
		isNetworkPolicy := e == api.PolicyEvaluator(j.networkPolicies[d])
		v, err := j.evaluate(e, d, f, packet, isNetworkPolicy)
		switch {
		case err != nil:
			return verdict{why: err.Error()}
		case own && isNetworkPolicy && v != api.VerdictNext:
			return verdict{allowed: true}
		case v != api.VerdictNext:
			return verdict{allowed: v == api.VerdictAccept}
		}
	}
	return verdict{allowed: true}
}

func (j *knpJudge) evaluate(e api.PolicyEvaluator, d policy.Direction, f policy.Flow, packet *network.Packet, isNetworkPolicy bool) (api.Verdict, error) {
	source, destination := j.peers[f.Source], j.peers[f.Destination]
	if isNetworkPolicy && packet.DstPort == 0 && slices.Contains(j.quirks, portZero) {
		zero := *packet
		zero.DstPort = -1
		packet = &zero
	}
	if !isNetworkPolicy && source == nil {
		source = j.notAPod
	}
	if d == policy.Ingress {
		return e.EvaluateIngress(context.Background(), packet, source, destination)
	}
	return e.EvaluateEgress(context.Background(), packet, j.peers[f.Source], destination)
}
