package node

import (
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// A policy that was never in force, and whose groups do not arrive, isolates its pods at last and allows the addresses that are known.
func TestAPolicyWhoseGroupsDoNotCome(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "half", 0, 3, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("half"), fromGroup("none"))
	s.IsolateLate(start.Add(time.Second), time.Hour)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	if !s.AwaitsGroups(start, time.Hour) || s.AwaitsGroups(start, 0) {
		t.Error("it does not wait, or does not stop waiting")
	}
	if late := s.IsolateLate(start, 0); len(late) != 1 {
		t.Errorf("isolated are %v", late)
	}
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	if s.AwaitsGroups(start, time.Hour) || len(s.IsolateLate(start, 0)) > 0 {
		t.Error("it is isolated twice")
	}
	s.slice("shop", "half", 2, 0, "10.0.0.3/32") // with a gap still
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "half", 0, 2, "10.0.0.2/32")
	s.slice("shop", "half", 1, 0, "10.0.0.4/32") // complete, and one more than listed
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.sliceGone("shop", "half", 2)
	s.denied("10.0.0.3", "10.0.0.1", 80)
	s.allowed("10.0.0.4", "10.0.0.1", 80)
	s.slice("shop", "none", 0, 1, "10.0.0.5/32")
	s.allowed("10.0.0.5", "10.0.0.1", 80)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	if len(s.waiting) > 0 {
		t.Error("it waits for nothing")
	}
	s.endpointGone("allow")
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	for _, index := range []int{0, 1, 2} {
		s.sliceGone("shop", "half", index)
	}
	s.sliceGone("shop", "none", 0)
	if n := len(s.groups) + len(s.groupUsers); n > 0 {
		t.Errorf("groups are left: %v, %v", s.groups, s.groupUsers)
	}
}

func TestAnUnreadablePolicyThatWasNeverInForceIsolates(t *testing.T) {
	allow := func(peers []v1alpha1.Peer, ports ...v1alpha1.Port) []v1alpha1.Rule {
		return []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: peers, Ports: ports}}
	}
	block := []v1alpha1.Peer{{CIDR: "10.0.0.0/8"}}
	for name, broken := range map[string]v1alpha1.PolicyEndpointSpec{
		"host bits beyond the address": {Ingress: allow([]v1alpha1.Peer{{CIDR: "10.0.0.0/33"}})},
		"an IPv4-mapped block":         {Ingress: allow([]v1alpha1.Peer{{CIDR: "::ffff:10.0.0.0/104"}})},
		"an except that lies outside":  {Ingress: allow([]v1alpha1.Peer{{CIDR: "10.0.0.0/8", Except: []v1alpha1.CIDR{"11.0.0.0/16"}}})},
		"a range that ends too soon":   {Ingress: allow(nil, v1alpha1.Port{Port: 90, EndPort: 80})},
		"a port beyond the last":       {Ingress: allow(nil, v1alpha1.Port{Port: 65536})},
		"no such protocol":             {Ingress: allow(nil, v1alpha1.Port{Protocol: "DCCP"})},
		"an empty peer":                {Ingress: allow([]v1alpha1.Peer{{}})},
		"half of it can be read":       {Ingress: append(allow(nil), allow([]v1alpha1.Peer{{}})...)},
		"an unknown action":            {Ingress: []v1alpha1.Rule{{Action: "Log"}}},
		"no action":                    {Ingress: []v1alpha1.Rule{{}}},
		"another kind's action":        {Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAccept}}},
		"a domain name for ingress":    {Ingress: allow([]v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"example.com"}}})},
		"an unknown enforcement":       {Ingress: allow(block), Enforcement: "Sometimes"},
		"an unknown policy type":       {Ingress: allow(block), PolicyTypes: []v1alpha1.PolicyType{"Sideways"}},
		"a field of a newer schema":    {Ingress: allow(nil), UnknownFields: []string{"ingress[0].schedule"}},
	} {
		s := newStory(t)
		s.pod("web", "10.0.0.1")
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "allow"}, Spec: broken}
		if pe.Spec.PolicyTypes == nil {
			pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
		}
		for range 2 { // watches repeat objects
			if s.SetPolicyEndpoint(start, pe) == nil {
				t.Errorf("%s: it can be read", name)
			}
			s.denied("10.0.0.9", "10.0.0.1", 80)
		}
		s.endpoint("allow", everyPod, v1alpha1.Rule{})
		s.allowed("10.0.0.9", "10.0.0.1", 80)
	}
}

func TestAPolicyWithDomainNamesIsolates(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "names"}, Spec: v1alpha1.PolicyEndpointSpec{
		PolicyTypes: []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress},
		Egress: []v1alpha1.Rule{
			{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"example.com"}}}},
			{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "192.0.2.0/24"}}},
		},
	}}
	if s.SetPolicyEndpoint(start, pe) == nil { // of an agent that does not enforce names
		t.Error("no error")
	}
	s.Commit()
	for to, want := range map[string]policy.Action{"203.0.113.1": policy.Deny, "192.0.2.1": policy.Allow} {
		f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr(to), Protocol: policy.TCP, Port: 80}
		if got, _ := s.Maps().Lookup(policy.Egress, f); got.Action != want {
			t.Errorf("%s: %v, want %v", to, got.Action, want)
		}
	}
}

// Anybody may write slices, and the API server cannot hold one against another.
func TestSlicesThatContradictEachOther(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("g"))

	second := oneGroup("shop", "another", "g", []string{"another", "g-1", "g-2"}, "10.0.0.3/32")
	if err := s.SetSlice(start, policy.ReadSlice(second)); err != nil {
		t.Fatal(err)
	}
	s.denied("10.0.0.3", "10.0.0.1", 80) // two slices of the second list are missing
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.slice("shop", "g", 2, 0, "10.0.0.2/32")
	s.denied("10.0.0.3", "10.0.0.1", 80) // one is missing
	s.slice("shop", "g", 1, 0)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "g", 7, 0, "10.0.0.7/32") // not listed
	s.allowed("10.0.0.7", "10.0.0.1", 80)
	s.sliceGone("shop", "g", 7)
	s.denied("10.0.0.7", "10.0.0.1", 80)
	s.sliceGone("shop", "g", 0)
	s.allowed("10.0.0.2", "10.0.0.1", 80) // another slice has it too
	s.slice("shop", "g", 2, 0, "0.0.0.0/0", "10.0.0.8/24")
	s.allowed("192.0.2.1", "10.0.0.1", 80)
	s.slice("shop", "g", 2, 0)
	s.denied("192.0.2.1", "10.0.0.1", 80)
	s.denied("10.0.0.2", "10.0.0.1", 80)
	s.allowed("10.0.0.3", "10.0.0.1", 80)
}
