package policy

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

const shared = "kidoban-system"

var compareAddresses = cmp.Options{
	cmpopts.EquateComparable(netip.Prefix{}),
	cmp.Transformer("Peers", func(p Peers) []Peer { return slices.Collect(p.All()) }),
}

func TestFromPolicyEndpoint(t *testing.T) {
	pe := &v1alpha1.PolicyEndpoint{}
	pe.Namespace, pe.Name = "shop", "web-1"
	pe.Spec = v1alpha1.PolicyEndpointSpec{
		PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "web", UID: "u", Generation: 3},
		PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress},
		Ingress: []v1alpha1.Rule{
			{Action: v1alpha1.ActionAllow, Name: "own", RuleIndexes: []int32{0, 2}, Peers: []v1alpha1.Peer{
				{Group: &v1alpha1.GroupReference{Name: "g"}},
				{Group: &v1alpha1.GroupReference{Name: "g", Shared: true}},
				{CIDR: "10.0.0.0/8", Except: []v1alpha1.CIDR{"10.1.0.0/16"}},
			}},
			{Action: v1alpha1.ActionAllow, Ports: []v1alpha1.Port{{Port: 80}, {Protocol: "UDP"}, {Port: 1, EndPort: 9}, {Name: "http"}}},
		},
	}
	got, err := FromPolicyEndpoint(pe, shared)
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		ID: ID{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", UID: "u", Generation: 3}, Tier: TierNetworkPolicy,
		Isolates: [2]bool{Ingress: true},
		Rules: [2][]Rule{Ingress: {
			{Name: "own", Action: Allow, Origin: []int32{0, 2}, EveryPort: true, Peers: ListPeers(
				Peer{Group: GroupKey{"shop", "g"}},
				Peer{Group: GroupKey{shared, "g"}},
				Peer{CIDR: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
			)},
			{Action: Allow, Everyone: true, Ports: []PortRange{
				{Protocol: TCP, First: 80, Last: 80}, {Protocol: UDP, Last: 65535}, {Protocol: TCP, First: 1, Last: 9}, {Protocol: TCP, Name: "http"},
			}},
		}, Egress: {}},
	}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	keys := GroupKeys(pe.Namespace, shared, pe.Spec.Ingress, pe.Spec.Egress)
	if diff := cmp.Diff([]GroupKey{{"shop", "g"}, {shared, "g"}}, keys); diff != "" {
		t.Errorf("groups (-want +got)\n%s", diff)
	}
}

func clusterPolicy(edit func(*v1alpha1.ClusterPolicyEndpointSpec)) *v1alpha1.ClusterPolicyEndpoint {
	cpe := &v1alpha1.ClusterPolicyEndpoint{}
	cpe.Spec = v1alpha1.ClusterPolicyEndpointSpec{
		PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "dns", UID: "u", Generation: 1},
		Tier:      v1alpha1.TierAdmin, Priority: 7,
		Egress: []v1alpha1.Rule{
			{Action: v1alpha1.ActionAccept, Name: "dns", Peers: []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: "g", Shared: true}}}},
			{Action: v1alpha1.ActionPass, Ports: []v1alpha1.Port{{Port: 80}}},
			{Action: v1alpha1.ActionDeny},
		},
	}
	edit(&cpe.Spec)
	return cpe
}

func TestFromClusterPolicyEndpoint(t *testing.T) {
	got, err := FromClusterPolicyEndpoint(clusterPolicy(func(*v1alpha1.ClusterPolicyEndpointSpec) {}), shared)
	if err != nil {
		t.Fatal(err)
	}
	want := &Policy{
		ID: ID{Kind: "ClusterNetworkPolicy", Name: "dns", UID: "u", Generation: 1}, Tier: TierAdmin, Priority: 7,
		Isolates: [2]bool{Egress: true},
		Rules: [2][]Rule{Ingress: {}, Egress: {
			{Name: "dns", Action: Allow, EveryPort: true, Peers: ListPeers(Peer{Group: GroupKey{shared, "g"}})},
			{Action: Pass, Everyone: true, Ports: []PortRange{{Protocol: TCP, First: 80, Last: 80}}},
			{Action: Deny, Everyone: true, EveryPort: true},
		}},
	}
	if diff := cmp.Diff(want, got, compareAddresses); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhatAClusterPolicyEndpointMayNotSay(t *testing.T) {
	for want, edit := range map[string]func(*v1alpha1.ClusterPolicyEndpointSpec){
		`spec.tier: unknown tier "Top"`:                      func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Tier = "Top" },
		`spec.tier: unknown tier ""`:                         func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Tier = "" },
		`spec.egress[2].action: unknown action "Allow"`:      func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Egress[2].Action = v1alpha1.ActionAllow },
		`spec.egress[0].peers[0].group.shared: must be true`: func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Egress[0].Peers[0].Group.Shared = false },
		`spec.enforcement: unknown value "Sometimes"`:        func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.Enforcement = "Sometimes" },
		`spec.subject.newer: unknown field`:                  func(s *v1alpha1.ClusterPolicyEndpointSpec) { s.UnknownFields = []string{"subject.newer"} },
		`spec.egress[2].peers[0].domainNames: domain names are for rules that allow, not for Deny`: func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Egress[2].Peers = []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"a.example"}}}
		},
		`spec.ingress[0].peers[0].domainNames: domain names are for egress only`: func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Ingress = []v1alpha1.Rule{{Action: v1alpha1.ActionAccept, Peers: []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"a.example"}}}}}
		},
		`spec.egress[0].peers[0].domainNames[1]: "10.0.0.1" is an address`: func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Egress[0].Peers[0] = v1alpha1.Peer{DomainNames: []v1alpha1.DomainName{"a.example", "10.0.0.1"}}
		},
		`spec.egress[0].peers[0].domainNames: set exactly one of group, cidr and domainNames`: func(s *v1alpha1.ClusterPolicyEndpointSpec) {
			s.Egress[0].Peers[0].DomainNames = []v1alpha1.DomainName{"a.example"}
		},
	} {
		if p, err := FromClusterPolicyEndpoint(clusterPolicy(edit), shared); err == nil || p != nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestNamesOfAPeer(t *testing.T) {
	got, err := fromNames(&v1alpha1.Peer{DomainNames: []v1alpha1.DomainName{"api.example.com", "*.Example.com."}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Peer{DomainNames: []string{"api.example.com", "*.example.com"}}, got, compareAddresses); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if _, err := fromNames(&v1alpha1.Peer{DomainNames: []v1alpha1.DomainName{"a.example"}, Except: []v1alpha1.CIDR{"10.0.0.0/8"}}); err == nil {
		t.Error("an except beside names")
	}
}

func TestFailClosed(t *testing.T) {
	for _, tc := range []struct {
		types []v1alpha1.PolicyType
		want  [2]bool
	}{
		{[]v1alpha1.PolicyType{"Ingress"}, [2]bool{Ingress: true}},
		{[]v1alpha1.PolicyType{"Egress"}, [2]bool{Egress: true}},
		{[]v1alpha1.PolicyType{"Ingress", "Egress"}, [2]bool{true, true}},
		{[]v1alpha1.PolicyType{"Sideways"}, [2]bool{true, true}},
	} {
		pe := &v1alpha1.PolicyEndpoint{Spec: v1alpha1.PolicyEndpointSpec{PolicyTypes: tc.types, Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow}}}}
		if p := FailClosed(pe); p.Isolates != tc.want || len(p.Rules[Ingress])+len(p.Rules[Egress]) > 0 || p.Tier != TierNetworkPolicy {
			t.Errorf("%v: %+v", tc.types, p)
		}
	}
}
