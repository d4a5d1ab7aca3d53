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

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/e2e/cluster"
	"github.com/kidoban/kidoban/e2e/matrix"
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
	create(t, partnerOnly("booted"))
	awaitInForce(t)
	setAgents(t, `{"name":"KIDOBAN_NRI_SOCKET","value":"/run/nri/none.sock"}`)
	t.Cleanup(func() { setAgents(t, `{"name":"KIDOBAN_NRI_SOCKET","$patch":"delete"}`) })
	addr := partner[0]
	if netip.MustParseAddr(pods(t, "frontend")[0].Status.PodIP).Is6() {
		addr = partner[1]
	}
	allowed, denied := partnerPort(addr, 443), partnerPort(addr, 8443)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "booted", Labels: map[string]string{matrix.WorkloadLabel: "booted"}},
		Spec: corev1.PodSpec{
			NodeName: nodes[0], TerminationGracePeriodSeconds: ptr.To[int64](0), AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{
				Name: "booted", Image: pods(t, "frontend")[0].Spec.Containers[0].Image, Stdin: true,
				Args: []string{"watch", "--interval=5ms", "--timeout=500ms", allowed.String(), denied.String()},
			}},
		},
	}
	create(t, pod)
	attempts := func(restarts int32) {
		t.Helper()
		leaks := 0
		eventually(t, fmt.Sprintf("the pod gets through after %d restarts, and is denied", restarts), func(ctx context.Context) error {
			if err := store.Client.Get(ctx, client.ObjectKeyFromObject(pod), pod); err != nil {
				return err
			}
			if s := pod.Status.ContainerStatuses; len(s) == 0 || s[0].RestartCount < restarts || s[0].State.Running == nil {
				return fmt.Errorf("containers %+v", s)
			}
			results, err := logged(ctx, pod)
			if err != nil {
				return err
			}
			through, after := false, 0
			leaks = 0
			for _, r := range results {
				through = through || r.Target == allowed && r.Outcome == reach.Open
				if r.Target == denied && r.Outcome == reach.Open {
					leaks++
				}
				if through && r.Target == denied && r.Outcome == reach.TimedOut {
					after++
				}
			}
			if after < 50 {
				return fmt.Errorf("through: %t, %d attempts denied after, of %d", through, after, len(results))
			}
			return nil
		})
		t.Logf("after %d restarts: %d connections passed that the policy denies", restarts, leaks)
		if leaks > 0 {
			t.Errorf("%d connections passed that the policy denies", leaks)
		}
	}
	attempts(0)
	for restart := range int32(2) {
		if err := test.Stop(t.Context(), nodes[0]); err != nil {
			t.Fatal(err)
		}
		if err := test.Start(t.Context(), nodes[0]); err != nil {
			t.Fatal(err)
		}
		attempts(restart + 1)
	}
	if err := store.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
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
