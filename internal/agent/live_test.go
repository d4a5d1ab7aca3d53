package agent

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane/conntrack"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// liveFlow is an entry of conntrack.
func liveFlow(from, to string, port uint16) conntrack.Flow {
	f := conntrack.Flow{Protocol: policy.TCP}
	f.Original.Source, f.Reply.Source = netip.AddrPortFrom(netip.MustParseAddr(from), 40000), netip.AddrPortFrom(netip.MustParseAddr(to), port)
	return f
}

func withFlows(flows ...conntrack.Flow) *fakeKernel {
	k := newFakeKernel()
	k.flows = flows
	return k
}

// auditingSweeper is one of a node with the pods web and db, on which these policies are audited.
func auditingSweeper(t *testing.T, kernel *fakeKernel, audited ...*v1alpha1.PolicyEndpoint) *sweeper {
	t.Helper()
	s := newState(node.Options{SharedNamespace: shared, DomainNames: true})
	s.node.SetPod(start, pod("web", "10.0.0.1"))
	s.node.SetPod(start, pod("db", "10.0.0.2"))
	s.node.NamespaceSynced(start, "shop")
	for _, pe := range audited {
		pe.Spec.Enforcement = v1alpha1.EnforcementAudit
		if err := s.node.SetPolicyEndpoint(start, policy.ReadEndpoint(pe, shared)); err != nil {
			t.Fatal(err)
		}
	}
	s.commit(false)
	return &sweeper{kernel: kernel, names: kernel, state: s}
}

func auditedRef(name string) agentapi.PolicyRef {
	return agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: name}
}

// Enforcing audited policies would cut the connections that they deny: those of all, whichever of them isolates.
func TestWhatEnforcingWouldCut(t *testing.T) {
	egress := policyEndpoint("egress")
	egress.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	egress.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	egress.Spec.Egress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.2/32"}}}}
	ingress := policyEndpoint("ingress", v1alpha1.Peer{CIDR: "10.0.0.1/32"})
	kernel := withFlows(
		liveFlow("10.0.0.1", "10.0.0.2", 5432),     // allowed by both
		liveFlow("10.0.0.1", "192.0.2.1", 443),     // no rule of egress
		liveFlow("198.51.100.7", "10.0.0.2", 5432), // no rule of ingress
		liveFlow("10.0.0.2", "192.0.2.1", 443),     // db is not isolated for egress
	)
	got, err := auditingSweeper(t, kernel, egress, ingress).wouldCut()
	if err != nil {
		t.Fatal(err)
	}
	want := map[agentapi.PolicyRef]*agentapi.LiveDenials{
		auditedRef("egress"): {Connections: 1, Examples: []agentapi.LiveConnection{
			{Pod: "shop/web", Direction: "Egress", Peer: netip.MustParseAddr("192.0.2.1"), Protocol: "TCP", Port: 443},
		}},
		auditedRef("ingress"): {Connections: 1, Examples: []agentapi.LiveConnection{
			{Pod: "shop/db", Direction: "Ingress", Peer: netip.MustParseAddr("198.51.100.7"), Protocol: "TCP", Port: 5432},
		}},
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

// A connection to an address whose name the node does not know yet would be cut; one to a known address of the name would not.
func TestLiveConnectionsWithoutAKnownName(t *testing.T) {
	byName := policyEndpoint("names")
	byName.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	byName.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	byName.Spec.Egress = []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"api.example.com"}}}}}
	kernel := withFlows(liveFlow("10.0.0.1", "192.0.2.1", 443), liveFlow("10.0.0.1", "192.0.2.2", 443))
	s := auditingSweeper(t, kernel, byName)
	kernel.learned = map[netip.Addr][]compiler.PatternID{netip.MustParseAddr("192.0.2.1"): {s.state.node.Maps().Domains["api.example.com"].Own}}
	got, err := s.wouldCut()
	if err != nil {
		t.Fatal(err)
	}
	l := got[auditedRef("names")]
	if l == nil || l.Connections != 1 || l.Unnamed != 1 || l.Examples[0].Peer != netip.MustParseAddr("192.0.2.2") || !l.Examples[0].Unnamed {
		t.Errorf("%+v", l)
	}
}

// Conntrack is read once in a while, however often the question comes, and a failure is reported.
func TestLiveDenialsAreRememberedForAWhile(t *testing.T) {
	pe := policyEndpoint("ingress")
	kernel := withFlows(liveFlow("198.51.100.7", "10.0.0.2", 5432))
	s := auditingSweeper(t, kernel, pe)
	var l liveDenials
	ask := func(at time.Duration) int {
		t.Helper()
		got, err := l.of(s, start.Add(at))
		if err != nil {
			t.Fatal(err)
		}
		if d := got[auditedRef("ingress")]; d != nil {
			return d.Connections
		}
		return 0
	}
	if n := ask(0); n != 1 {
		t.Errorf("%d connections", n)
	}
	kernel.flows = nil
	if n := ask(liveFresh); n != 1 {
		t.Errorf("%d connections: conntrack was read again", n)
	}
	if n := ask(liveFresh + time.Second); n != 0 {
		t.Errorf("%d connections of before", n)
	}
	kernel.flows = []conntrack.Flow{liveFlow("198.51.100.7", "10.0.0.2", 5432)}
	kernel.fail("Flows", errors.New("no conntrack"))
	if _, err := l.of(s, start.Add(time.Hour)); err == nil {
		t.Error("no error")
	}
}
