package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// Changes that never end do not delay the second look.
func TestTheSecondLookComesWhileChangesGoOn(t *testing.T) {
	narrowed := func(i byte) compiler.Narrowed {
		return compiler.Narrowed{Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, i})}}
	}
	var looks secondLooks
	if !looks.add(narrowed(1)) || looks.add(narrowed(2)) || looks.add(narrowed(3)) {
		t.Error("the timer is not started once, by the first")
	}
	work, more := looks.take()
	if len(work.addresses) != 1 || !more {
		t.Errorf("due are %v; more: %t", work.addresses, more)
	}
	if looks.add(narrowed(4)) {
		t.Error("the timer is started though it runs")
	}
	if work, more = looks.take(); len(work.addresses) != 2 || !more {
		t.Errorf("due are %v; more: %t", work.addresses, more)
	}
	if work, more = looks.take(); len(work.addresses) != 1 || more {
		t.Errorf("due are %v; more: %t", work.addresses, more)
	}
	if looks.add(compiler.Narrowed{}) || !looks.add(compiler.Narrowed{Everything: true}) {
		t.Error("nothing starts the timer, or everything does not")
	}
}

func TestAFullMapIsOneFailure(t *testing.T) {
	full := func(key, name string) error {
		return fmt.Errorf("write %s: %w", key, &dataplane.MapFullError{Map: name, Max: 10})
	}
	if !sameFailure(full("10.0.0.1", "addresses"), full("10.0.0.2", "addresses")) {
		t.Error("another entry makes another failure")
	}
	if sameFailure(full("10.0.0.1", "addresses"), full("10.0.0.1", "networks")) || sameFailure(full("10.0.0.1", "addresses"), errors.New("unhealed")) {
		t.Error("different failures are one")
	}
}

func TestWhichLiveFlowsAreCut(t *testing.T) {
	tables := tablesOf(t, pod("web", "10.0.0.1"), policyEndpoint("allow", v1alpha1.Peer{CIDR: "10.0.0.2/32"}))
	node := map[netip.Addr]bool{netip.MustParseAddr("10.9.9.9"): true}
	for _, tc := range []struct {
		name, from, to string
		cut            bool
	}{
		{"from a peer", "10.0.0.2", "10.0.0.1", false},
		{"from another address", "10.0.0.3", "10.0.0.1", true},
		{"to the outside, where nothing isolates", "10.0.0.1", "10.0.0.3", false},
		{"from the node, as the kubelet's probes", "10.9.9.9", "10.0.0.1", false},
		{"to itself", "10.0.0.1", "10.0.0.1", false},
		{"of no pod here", "10.0.0.3", "10.0.0.4", false},
	} {
		f := policy.Flow{Source: netip.MustParseAddr(tc.from), Destination: netip.MustParseAddr(tc.to), Protocol: policy.TCP, Port: 80}
		if got := (&judgement{maps: tables, own: node}).denies(f); got != tc.cut {
			t.Errorf("%s: cut %v, want %v", tc.name, got, tc.cut)
		}
	}
	audited := tables
	for addr, p := range audited.Pods {
		p.Flags |= compiler.Audit
		audited.Pods[addr] = p
	}
	f := policy.Flow{Source: netip.MustParseAddr("10.0.0.3"), Destination: netip.MustParseAddr("10.0.0.1"), Protocol: policy.TCP, Port: 80}
	if (&judgement{maps: audited, own: node}).denies(f) {
		t.Error("a flow of a pod that is only audited is cut")
	}
}

// What a helper of conntrack expected, such as the data of active FTP, is judged by the flow that it was expected from.
func TestAnExpectedFlowIsCutWithItsMaster(t *testing.T) {
	tables := tablesOf(t, pod("web", "10.0.0.1"), policyEndpoint("allow", v1alpha1.Peer{CIDR: "10.0.0.2/32"}))
	flow := func(from, to string) policy.Flow {
		return policy.Flow{Source: netip.MustParseAddr(from), Destination: netip.MustParseAddr(to), Protocol: policy.TCP, Port: 80}
	}
	allowed, denied := flow("10.0.0.2", "10.0.0.1"), flow("10.0.0.3", "10.0.0.1")
	for _, tc := range []struct {
		name    string
		flow    policy.Flow
		masters []policy.Flow
		cut     bool
	}{
		{"denied, and without a master", denied, nil, true},
		{"denied, and its master", denied, []policy.Flow{denied}, true},
		{"denied, and its master allowed", denied, []policy.Flow{allowed}, false},
		{"denied, and its master, and that one's allowed", denied, []policy.Flow{denied, allowed}, false},
		{"allowed, and its master denied", allowed, []policy.Flow{denied}, false},
	} {
		f := conntrack.Flow{Protocol: policy.TCP, Masters: tc.masters}
		f.Original.Source, f.Reply.Source = netip.AddrPortFrom(tc.flow.Source, 40000), netip.AddrPortFrom(tc.flow.Destination, tc.flow.Port)
		if got := (&judgement{maps: tables}).isToCut(&f); got != tc.cut {
			t.Errorf("%s: cut %v, want %v", tc.name, got, tc.cut)
		}
	}
}

// Cluster policies also cut a pod's flows to its own node, and to itself through a Service, in both tiers. NetworkPolicies do not.
func TestWhichLiveFlowsClusterPoliciesCut(t *testing.T) {
	own := map[netip.Addr]bool{netip.MustParseAddr("10.9.9.9"): true}
	for _, tier := range []v1alpha1.Tier{v1alpha1.TierAdmin, v1alpha1.TierBaseline} {
		for _, d := range policy.Directions {
			spec := v1alpha1.ClusterPolicyEndpointSpec{PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "c"}, Tier: tier}
			rules := []v1alpha1.Rule{{Action: v1alpha1.ActionDeny, Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 80}}}}
			if spec.Egress = rules; d == policy.Ingress {
				spec.Egress, spec.Ingress = nil, rules
			}
			n := node.New(node.Options{SharedNamespace: shared})
			n.SetPod(start, pod("web", "10.0.0.1"))
			n.NamespaceSynced(start, "shop")
			if err := n.SetClusterPolicyEndpoint(start, &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1", Generation: 1}, Spec: spec}); err != nil {
				t.Fatal(err)
			}
			n.ClusterSynced(start)
			n.Commit()
			j := &judgement{maps: n.Maps(), own: own}
			for _, tc := range []struct {
				name, from, to string
				port           uint16
				cut            bool
			}{
				{"to the own node", "10.0.0.1", "10.9.9.9", 80, d == policy.Egress},
				{"to another port of the own node", "10.0.0.1", "10.9.9.9", 81, false},
				{"from the own node, as the kubelet's probes", "10.9.9.9", "10.0.0.1", 80, false},
				{"to itself through a Service", "10.0.0.1", "10.0.0.1", 80, true},
				{"to another address", "10.0.0.1", "10.0.0.2", 80, d == policy.Egress},
				{"from another address", "10.0.0.2", "10.0.0.1", 80, d == policy.Ingress},
			} {
				f := policy.Flow{Source: netip.MustParseAddr(tc.from), Destination: netip.MustParseAddr(tc.to), Protocol: policy.TCP, Port: tc.port}
				if got := j.denies(f); got != tc.cut {
					t.Errorf("%s, %s rule: %s: cut %t, want %t", tier, d, tc.name, got, tc.cut)
				}
			}
		}
	}
}

func tablesOf(t *testing.T, p *corev1.Pod, pe *v1alpha1.PolicyEndpoint) *compiler.Maps {
	t.Helper()
	n := node.New(node.Options{SharedNamespace: shared})
	n.SetPod(start, p)
	n.NamespaceSynced(start, p.Namespace)
	if err := n.SetPolicyEndpoint(start, policy.ReadEndpoint(pe, shared)); err != nil {
		t.Fatal(err)
	}
	n.Commit()
	return n.Maps()
}

// A flow to an address of a name stays while a rule has the name, also when the name's time is over.
func TestFlowsToNamesStayWhileARuleHasTheName(t *testing.T) {
	client, target := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.0.2.1")
	p := &policy.Policy{Tier: policy.TierNetworkPolicy, Isolates: [2]bool{policy.Egress: true}}
	p.Rules[policy.Egress] = []policy.Rule{{EveryPort: true, Peers: policy.ListPeers(policy.Peer{DomainNames: []string{"api.example"}})}}
	c := compiler.New()
	c.SetPod("shop/web", compiler.PodSpec{Addresses: []netip.Addr{client}, Policies: []*policy.Policy{p}})
	c.Commit()
	f := policy.Flow{Source: client, Destination: target, Protocol: policy.TCP, Port: 443}
	j := judgement{maps: c.Maps(), names: map[netip.Addr][]compiler.PatternID{target: {c.Maps().Domains["api.example"].Own}}}
	if j.denies(f) {
		t.Error("a flow to a name of a rule is cut")
	}
	j.names[target][0]++
	if !j.denies(f) {
		t.Error("a flow to a name that no rule has stays")
	}
}
