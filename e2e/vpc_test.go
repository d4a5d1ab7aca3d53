//go:build e2e && vpc

package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/reach"
)

// The partner outside the cluster, in both families.
var partner = []netip.Addr{netip.MustParseAddr("203.0.113.10"), netip.MustParseAddr("2001:db8:113::10")}

func partnerPort(addr netip.Addr, port uint16) reach.Target {
	return reach.Target{Protocol: "tcp", Address: netip.AddrPortFrom(addr, port)}
}

// partnerOnly is a policy that allows egress to one port of the partner.
func partnerOnly(name string) *networkingv1.NetworkPolicy {
	var peers []networkingv1.NetworkPolicyPeer
	for _, addr := range partner {
		peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: netip.PrefixFrom(addr, addr.BitLen()).String()}})
	}
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: *workload(name),
			PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
			Egress:      []networkingv1.NetworkPolicyEgressRule{{Ports: tcp(443), To: peers}},
		},
	}
}

// TestVPCRules makes sure that the other tests run on what they claim: the plugin's rules, for pods of both network interfaces.
func TestVPCRules(t *testing.T) {
	for _, node := range nodes {
		for _, pod := range pods(t, "frontend") {
			if pod.Spec.NodeName != node {
				continue
			}
			rules, err := cluster.Output(test.OnNode(t.Context(), node, "ip", "-4", "rule"))
			if err != nil {
				t.Fatal(err)
			}
			if addr := netip.MustParseAddr(pod.Status.PodIP); addr.Is4() && !strings.Contains(rules, "512:\tfrom all to "+addr.String()+" lookup main") {
				t.Errorf("node %s has no rule for %s:\n%s", node, addr, rules)
			}
			if pod.Status.PodIPs[0].IP == "" || len(pod.Status.PodIPs) != 1 {
				t.Errorf("pod %s has %v, want one address", pod.Name, pod.Status.PodIPs)
			}
		}
	}
}

// TestReboot reboots a node with a pod that connects from its first instruction. The pod's network is ready when its policy is in force, without
// NRI: nothing passes that the policy denies.
func TestReboot(t *testing.T) {
	if !networkWaits() {
		t.Fatal("the CNI plugin does not wait for policies: add --vpc-policy-mode=standard to CLUSTER_FLAGS")
	}
	setAgents(t, `{"name":"KIDOBAN_NRI_SOCKET","value":"/run/nri/none.sock"}`)
	t.Cleanup(func() { setAgents(t, `{"name":"KIDOBAN_NRI_SOCKET","$patch":"delete"}`) })
	x := startEager(t, 1)
	for range 2 {
		x.reboot(t, func() {})
	}
	x.end(t)
}

// TestSecondInterface connects out of the cluster in the family that pods have no address of, by the interface that the egress plugin adds.
func TestSecondInterface(t *testing.T) {
	if !slices.Contains(layout(), "--vpc-egress") {
		t.Fatal("pods have one interface: add --vpc-egress to CLUSTER_FLAGS")
	}
	backend := pods(t, "backend")[0]
	addr := partner[0]
	if netip.MustParseAddr(backend.Status.PodIP).Is4() {
		addr = partner[1]
	}
	expect := func(when string, want map[uint16]reach.Outcome) {
		t.Helper()
		eventually(t, when, func(ctx context.Context) error {
			for port, outcome := range want {
				results, err := test.Dial(ctx, &backend, []reach.Target{partnerPort(addr, port)}, time.Second)
				if err != nil {
					return err
				}
				if results[0].Outcome != outcome {
					return fmt.Errorf("%s: %s, want %s", results[0].Target, results[0].Outcome, outcome)
				}
			}
			return nil
		})
	}
	expect("without a policy all is open", map[uint16]reach.Outcome{443: reach.Open, 8443: reach.Open})
	only := partnerOnly("backend")
	create(t, only)
	expect("a policy allows one port", map[uint16]reach.Outcome{443: reach.Open, 8443: reach.TimedOut})
	only.Spec.Egress = nil
	if err := store.Client.Update(t.Context(), only); err != nil {
		t.Fatal(err)
	}
	expect("a policy denies all", map[uint16]reach.Outcome{443: reach.TimedOut, 8443: reach.TimedOut})
}
