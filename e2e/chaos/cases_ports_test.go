//go:build e2e

package chaos

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/kidoban/kidoban/e2e/reach"
)

// The source addresses of calls from outside the pods: the host beside the nodes, and the second node.
var (
	outsideHost = []string{"172.30.0.10/32", "fd30::10/128"}
	secondNode  = []string{"172.30.0.12/32", "fd30::12/128"}
)

// caller is the role of pods whose egress nothing isolates and which exposed servers let in.
const caller = "caller"

// exposed is a server of a role of its own on the first node, and its policy, which lets in callers and some networks.
func exposed(t *testing.T, name string, hostPort int32, networks []string, peers ...networkingv1.NetworkPolicyPeer) *corev1.Pod {
	t.Helper()
	policy := ingress(name, name, caller, tcp(servedPort))
	policy.Spec.Ingress[0].From = peers
	for _, cidr := range networks {
		policy.Spec.Ingress[0].From = append(policy.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: cidr}})
	}
	p := servingPod(name, name, steady[0])
	p.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: servedPort, HostPort: hostPort}}
	create(t, policy, p)
	return p
}

// outside is where the calls come from that no pod makes.
const outside = "outside"

// A clientCall is one source's connections to a port of a node.
type clientCall struct {
	from    string // outside, or a pod
	node    string // whose address is called
	port    int32
	allowed bool
}

// callAll makes the calls until they go as they should, and then a number of times more. It counts from the first round that was right on.
func callAll(t *testing.T, what string, calls []clientCall) tally {
	t.Helper()
	round := func(ctx context.Context) (tally, error) {
		results := make([][]reach.Result, len(calls))
		group, ctx := errgroup.WithContext(ctx)
		for i, c := range calls {
			var to []reach.Target
			for _, address := range nodeAddresses(t, c.node) {
				to = append(to, reach.Target{Protocol: "tcp", Address: netip.AddrPortFrom(address, uint16(c.port))})
			}
			group.Go(func() (err error) {
				if c.from == outside {
					results[i], err = test.DialOutside(ctx, build.Probe, to, probeTimeout)
					return err
				}
				from, err := getPod(ctx, c.from)
				if err == nil {
					results[i], err = test.Dial(ctx, from, to, probeTimeout)
				}
				return err
			})
		}
		err := group.Wait()
		var sum tally
		for i, c := range calls {
			for _, r := range results[i] {
				sum.count(fmt.Sprintf("%s via %s", c.from, c.node), r, c.allowed)
			}
		}
		return sum, err
	}
	var sum tally
	eventually(t, what, func(ctx context.Context) (err error) {
		sum, err = round(ctx)
		if err == nil && sum.passes+sum.drops > 0 {
			err = fmt.Errorf("not yet:\n\t%s", sum.examples())
		}
		return err
	})
	for range times(9, 0) {
		counted, err := round(t.Context())
		must(t, err)
		sum.add(counted)
	}
	return sum
}

// nodeAddresses are the addresses of a node: n1 has 172.30.0.11 and fd30::11.
func nodeAddresses(t *testing.T, node string) []netip.Addr {
	t.Helper()
	var out []netip.Addr
	for _, ip := range member(t, server, node).Status.HostIPs {
		out = append(out, netip.MustParseAddr(ip.IP))
	}
	return out
}

// startCallers starts a caller on each of the steady nodes.
func startCallers(t *testing.T) {
	t.Helper()
	for _, node := range steady {
		create(t, servingPod("caller-"+node, caller, node))
	}
	for _, node := range steady {
		awaitPod(t, "caller-"+node)
	}
}

// hostPorts calls servers through ports of their node. The port mapping keeps the source, so the pod's policy decides on it.
func hostPorts(t *testing.T) []caseRow {
	exposed(t, "host-port", 18080, outsideHost, networkingv1.NetworkPolicyPeer{PodSelector: role(caller)})
	exposed(t, "host-port-pods", 18081, nil, networkingv1.NetworkPolicyPeer{PodSelector: role(caller)})
	startCallers(t)
	awaitPod(t, "host-port")
	awaitPod(t, "host-port-pods")
	node := steady[0]
	sum := callAll(t, "hostPorts answer", []clientCall{
		{outside, node, 18080, true},
		{outside, node, 18081, false},
		{"caller-n1", node, 18080, true},
		{"caller-n2", node, 18080, true},
		{"caller-n1", node, 18081, true},
		{"caller-n2", node, 18081, true},
		{"stranger-n1", node, 18080, false},
		{"stranger-n2", node, 18080, false},
		{"friend-n1", node, 18080, false}, // its egress policy: it is no server
		{"friend-n2", node, 18080, false}, // its egress policy: it is the address of a node
	})
	return []caseRow{{"hostPort from allowed, denied and in-cluster sources", nothingWrong, sum, nil}}
}

// nodePorts calls servers through NodePorts of both nodes. With externalTrafficPolicy Cluster the node that is called has its own address
// as source if the server is on another one; with Local the source stays, and only the server's node answers.
func nodePorts(t *testing.T) []caseRow {
	byPods := networkingv1.NetworkPolicyPeer{PodSelector: role(caller)}
	exposed(t, "node-port", 0, outsideHost, byPods)
	exposed(t, "node-port-nodes", 0, secondNode)
	startCallers(t)
	awaitPod(t, "node-port")
	awaitPod(t, "node-port-nodes")
	const clusterPort, localPort, nodesPort = 30080, 30081, 30082
	for _, s := range []struct {
		name, selects string
		port          int32
		policy        corev1.ServiceExternalTrafficPolicy
	}{
		{"node-port-cluster", "node-port", clusterPort, corev1.ServiceExternalTrafficPolicyCluster},
		{"node-port-local", "node-port", localPort, corev1.ServiceExternalTrafficPolicyLocal},
		{"node-port-nodes", "node-port-nodes", nodesPort, corev1.ServiceExternalTrafficPolicyCluster},
	} {
		create(t, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: s.name},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceTypeNodePort, Selector: role(s.selects).MatchLabels, ExternalTrafficPolicy: s.policy,
				IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicyPreferDualStack),
				Ports:          []corev1.ServicePort{{Port: servedPort, TargetPort: intstr.FromInt32(servedPort), NodePort: s.port}},
			},
		})
	}
	own, other := steady[0], steady[1] // of the server
	cluster := callAll(t, "NodePorts with externalTrafficPolicy Cluster answer", []clientCall{
		{outside, own, clusterPort, true},
		{outside, other, clusterPort, false}, // the source is the other node
		{outside, own, nodesPort, false},
		{outside, other, nodesPort, true},
		{"caller-n1", own, clusterPort, true},
		{"caller-n2", own, clusterPort, true},
		{"stranger-n1", own, clusterPort, false},
		{"stranger-n2", own, clusterPort, false},
	})
	local := callAll(t, "NodePorts with externalTrafficPolicy Local answer", []clientCall{
		{outside, own, localPort, true},
		{outside, other, localPort, false}, // no server there
		{"caller-n1", own, localPort, true},
		{"caller-n2", own, localPort, true},
		{"stranger-n1", own, localPort, false},
		{"stranger-n2", own, localPort, false},
	})
	return []caseRow{
		{"NodePort with externalTrafficPolicy Cluster", nothingWrong, cluster, nil},
		{"NodePort with externalTrafficPolicy Local", nothingWrong, local, nil},
	}
}
