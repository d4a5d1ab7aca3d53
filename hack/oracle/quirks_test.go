package oracle

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

var (
	client = netip.MustParseAddr("10.0.0.1")
	server = netip.MustParseAddr("10.0.0.2")
)

// shop is a namespace with a client and a server, and one policy.
func shop(t *testing.T, spec string) *Scenario {
	t.Helper()
	pod := func(name string, ip netip.Addr) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{"app": name}},
			Spec:       corev1.PodSpec{NodeName: "node1", Containers: []corev1.Container{{Name: "c"}}},
			Status:     corev1.PodStatus{Phase: corev1.PodRunning, PodIP: ip.String(), PodIPs: []corev1.PodIP{{IP: ip.String()}}},
		}
	}
	s := pod("server", server)
	s.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}, {Name: "web", ContainerPort: 8080, Protocol: corev1.ProtocolTCP}}
	s.Spec.InitContainers = []corev1.Container{{
		Name: "sidecar", RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Ports: []corev1.ContainerPort{{Name: "mesh", ContainerPort: 15000, Protocol: corev1.ProtocolTCP}},
	}}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "np"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &np.Spec); err != nil {
		t.Fatal(err)
	}
	return &Scenario{Events: []Event{
		{Do: Set, Namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}},
		{Do: Set, Pod: pod("client", client)}, {Do: Set, Pod: s}, {Do: Set, Policy: np},
	}}
}

// Each quirk is shown by a minimal example: without it the judge panics or says the opposite of the reference, with it it agrees. A quirk
// that no longer shows is to be deleted.
func TestQuirks(t *testing.T) {
	cyclonus := func(c *reference.Cluster, q []*quirk) judge { return newCyclonus(c, q) }
	knp := func(c *reference.Cluster, q []*quirk) judge { return newKubeNetworkPolicies(c, q) }
	http := policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 8080}
	for _, tc := range []struct {
		name   string
		of     *quirk
		all    []*quirk
		judge  func(*reference.Cluster, []*quirk) judge
		spec   string
		flow   policy.Flow
		want   bool
		panics bool
	}{
		{"cyclonus panics without policy types", noDefaults, cyclonusQuirks, cyclonus,
			"podSelector: {}", http, false, true},
		{"kube-network-policies isolates no pod without policy types", noDefaults, knpQuirks, knp,
			"podSelector: {}", http, false, false},
		{"kube-network-policies panics without a protocol", noDefaults, knpQuirks, knp,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{port: 80}]}]}", http, false, true},
		{"cyclonus panics at leading zeros", legacyBlocks, cyclonusQuirks, cyclonus,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 010.000.000.000/24}}]}]}", http, true, true},
		{"kube-network-policies takes leading zeros for everyone", legacyBlocks, knpQuirks, knp,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 010.009.000.000/24}}]}]}", http, false, false},
		{"cyclonus does not know sidecars", sidecars, cyclonusQuirks, cyclonus,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP, port: mesh}]}]}",
			policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 15000}, true, false},
		{"kube-network-policies does not know sidecars", sidecars, knpQuirks, knp,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP, port: mesh}]}]}",
			policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 15000}, true, false},
		{"cyclonus does not let NotIn hold where the label is absent", notIn, cyclonusQuirks, cyclonus,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchExpressions: [{key: env, operator: NotIn, values: [prod]}]}}]}]}", http, true, false},
		{"cyclonus takes an absent label for an empty one", emptyValue, cyclonusQuirks, cyclonus,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {matchLabels: {env: ''}}}]}]}", http, false, false},
		{"cyclonus is asked with one name of a port", onePortName, cyclonusQuirks, cyclonus,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP, port: web}]}]}", http, true, false},
		{"kube-network-policies takes an empty list of rules for everyone", emptyRules, knpQuirks, knp,
			"{podSelector: {}, policyTypes: [Ingress], ingress: []}", http, false, false},
		{"kube-network-policies takes a named port for port 0, too", portZero, knpQuirks, knp,
			"{podSelector: {}, policyTypes: [Ingress], ingress: [{ports: [{protocol: TCP, port: http}]}]}",
			policy.Flow{Source: client, Destination: server, Protocol: policy.TCP}, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cluster := shop(t, tc.spec).Cluster()
			if got := (clusterJudge{cluster}).judge(policy.Ingress, tc.flow); got.allowed != tc.want {
				t.Errorf("the reference says %v", got)
			}
			ask := func(quirks []*quirk) (v verdict, panicked any) {
				defer func() { panicked = recover() }()
				adapted, _ := adapt(cluster, quirks)
				return tc.judge(adapted, quirks).judge(policy.Ingress, tc.flow), nil
			}
			if got, panicked := ask(tc.all); panicked != nil || got.allowed != tc.want {
				t.Errorf("with the quirk known: %v, panic %v", got, panicked)
			}
			others := slices.DeleteFunc(slices.Clone(tc.all), func(q *quirk) bool { return q == tc.of })
			got, panicked := ask(others)
			if (panicked != nil) != tc.panics || panicked == nil && got.allowed == tc.want {
				t.Errorf("the quirk does not show: %v, panic %v", got, panicked)
			}
		})
	}
}

// The same for cluster policies, of which the first is c0, the next c1 and so on.
func TestClusterQuirks(t *testing.T) {
	const node, all = "172.16.0.1", "tier: Admin\npriority: 1\nsubject: {namespaces: {}}\n"
	outside, own := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr(node)
	for _, tc := range []struct {
		name          string
		of            *quirk
		networkPolicy string
		clusterPolicy string
		direction     policy.Direction
		flow          policy.Flow
		want          bool
	}{
		{"a Deny rule of ingress with an unknown peer denies pods", closedRules, "{podSelector: {matchLabels: {app: none}}}",
			all + "ingress: [{action: Deny, from: [{}]}]", policy.Ingress, policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 80}, false},
		{"a Pass rule of ingress with an unknown peer denies what is outside", closedRules, "{podSelector: {matchLabels: {app: none}}}",
			all + "ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Pass, from: [{}]}]", policy.Ingress,
			policy.Flow{Source: outside, Destination: server, Protocol: policy.TCP, Port: 80}, false},
		{"a Deny rule of egress with an unknown peer denies all", closedRules, "{podSelector: {matchLabels: {app: none}}}",
			all + "egress: [{action: Deny, to: [{}], protocols: [{udp: {}}]}]", policy.Egress,
			policy.Flow{Source: client, Destination: outside, Protocol: policy.TCP, Port: 80}, false},
		{"an Accept rule with a known and an unknown peer matches nothing", closedRules, "{podSelector: {matchLabels: {app: none}}}",
			all + "egress: [{action: Accept, to: [{}, {namespaces: {}}]}, {action: Deny, to: [{namespaces: {}}]}]", policy.Egress,
			policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 80}, false},
		{"Baseline decides about a pod that is isolated in the other direction", otherDirection, "{podSelector: {}, policyTypes: [Ingress]}",
			"tier: Baseline\npriority: 1\nsubject: {namespaces: {}}\negress: [{action: Deny, to: [{namespaces: {}}]}]", policy.Egress,
			policy.Flow{Source: client, Destination: server, Protocol: policy.TCP, Port: 80}, false},
		{"NetworkPolicies do not apply to traffic to the own node", nodeTraffic, "{podSelector: {}, policyTypes: [Egress]}",
			"tier: Baseline\npriority: 1\nsubject: {namespaces: {}}\negress: [{action: Deny, to: [{nodes: {}}]}]", policy.Egress,
			policy.Flow{Source: client, Destination: own, Protocol: policy.TCP, Port: 80}, true},
		{"what the node opens is allowed", nodeTraffic, "{podSelector: {}, policyTypes: [Ingress]}",
			all + "egress: [{action: Deny, to: [{nodes: {}}]}]", policy.Ingress,
			policy.Flow{Source: own, Destination: server, Protocol: policy.TCP, Port: 80}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := shop(t, tc.networkPolicy)
			p := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "c0"}}
			if err := yaml.UnmarshalStrict([]byte(tc.clusterPolicy), &p.Spec); err != nil {
				t.Fatal(err)
			}
			n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node1"}}
			n.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: node}}
			s.Events = append(s.Events, Event{Do: Set, Node: n}, Event{Do: Set, ClusterPolicy: p})
			cluster := s.Cluster()
			if got := (clusterJudge{cluster}).judge(tc.direction, tc.flow); got.allowed != tc.want {
				t.Errorf("the reference says %v", got)
			}
			ask := func(quirks []*quirk) verdict {
				adapted, _ := adapt(cluster, quirks)
				return newKubeNetworkPolicies(adapted, quirks).judge(tc.direction, tc.flow)
			}
			if got := ask(knpQuirks); got.allowed != tc.want {
				t.Errorf("with the quirk known: %v", got)
			}
			if got := ask(slices.DeleteFunc(slices.Clone(knpQuirks), func(q *quirk) bool { return q == tc.of })); got.allowed == tc.want {
				t.Errorf("the quirk does not show: %v", got)
			}
		})
	}
}

func TestShrinking(t *testing.T) {
	d := newDice(1, 7)
	s := d.history(d.objects())
	bad := shop(t, "{podSelector: {}, ingress: [{ports: [{port: 80}]}, {from: [{podSelector: {matchLabels: {app: a}}}, {}]}]}")
	s.Events = append(s.Events, bad.Events...)
	_, diff := convene(s)
	if diff == nil {
		t.Fatal("a peer that is nothing is no difference")
	}
	if got := diff.Shrink().Scenario.Events; len(got) != 1 || got[0].Policy == nil || len(got[0].Policy.Spec.Ingress) != 1 ||
		len(got[0].Policy.Spec.Ingress[0].From) != 1 || got[0].Policy.Spec.Ingress[0].From[0] != (networkingv1.NetworkPolicyPeer{}) {
		t.Errorf("shrunk to %v", got)
	}
}
