package agent

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Where its groups do not come, a policy that was never in force isolates at last, and allows what is known.
func TestAPolicyWhoseGroupsDoNotCome(t *testing.T) {
	s := tell(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "half", 0, 3, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("half"), fromGroup("none"))
	s.isolateLate(time.Hour)
	s.open("10.0.0.9", "10.0.0.1", 80)
	if !s.awaitsGroups(time.Hour) || s.awaitsGroups(0) {
		t.Error("it is not said whether it waits")
	}
	if late := s.isolateLate(0); len(late) != 1 {
		t.Errorf("late are %v", late)
	}
	s.closed("10.0.0.9", "10.0.0.1", 80)
	s.open("10.0.0.2", "10.0.0.1", 80)
	if s.awaitsGroups(time.Hour) || len(s.isolateLate(0)) > 0 {
		t.Error("it is late twice")
	}
	s.slice("shop", "half", 2, 0, "10.0.0.3/32") // with a gap still
	s.open("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "half", 0, 2, "10.0.0.2/32")
	s.slice("shop", "half", 1, 0, "10.0.0.4/32") // whole, without the last one
	s.closed("10.0.0.3", "10.0.0.1", 80)
	s.open("10.0.0.4", "10.0.0.1", 80)
	s.slice("shop", "none", 0, 1, "10.0.0.5/32")
	s.open("10.0.0.5", "10.0.0.1", 80)
	s.closed("10.0.0.9", "10.0.0.1", 80)
	if len(s.waiting) > 0 {
		t.Error("it waits for nothing")
	}
	s.deletePolicyEndpoint(types.NamespacedName{Namespace: "shop", Name: "allow"})
	s.open("10.0.0.9", "10.0.0.1", 80)
	for _, index := range []int{0, 1, 2} {
		s.sliceGone("shop", "half", index)
	}
	s.sliceGone("shop", "none", 0)
	if n := len(s.groups) + len(s.groupUsers); n > 0 {
		t.Errorf("groups are left: %v, %v", s.groups, s.groupUsers)
	}
}

// Rules of other tiers may deny: without their groups they could open what NetworkPolicies refuse.
func TestAPolicyOfAnotherTierGoesOnWaiting(t *testing.T) {
	s := tell(t)
	s.pod("web", "10.0.0.1")
	pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "admin"}}
	pe.Spec.Tier, pe.Spec.PolicyTypes = v1alpha1.TierAdmin, []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
	pe.Spec.Ingress = []v1alpha1.Rule{fromGroup("none")}
	if err := s.setPolicyEndpoint(pe); err != nil {
		t.Fatal(err)
	}
	if late := s.isolateLate(0); len(late) > 0 || s.awaitsGroups(0) {
		t.Errorf("late are %v", late)
	}
}

func TestABrokenPolicyThatWasNeverInForceIsolates(t *testing.T) {
	for name, broken := range map[string]v1alpha1.PolicyEndpointSpec{
		"host bits beyond the address": {Ingress: []v1alpha1.Rule{{Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/33"}}}}},
		"an IPv4-mapped block":         {Ingress: []v1alpha1.Rule{{Peers: []v1alpha1.Peer{{CIDR: "::ffff:10.0.0.0/104"}}}}},
		"an except that lies outside":  {Ingress: []v1alpha1.Rule{{Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/8", Except: []v1alpha1.CIDR{"11.0.0.0/16"}}}}}},
		"a range that ends too soon":   {Ingress: []v1alpha1.Rule{{Ports: []v1alpha1.Port{{Port: 90, EndPort: 80}}}}},
		"a port beyond the last":       {Ingress: []v1alpha1.Rule{{Ports: []v1alpha1.Port{{Port: 65536}}}}},
		"no such protocol":             {Ingress: []v1alpha1.Rule{{Ports: []v1alpha1.Port{{Protocol: "DCCP"}}}}},
		"a peer that is nobody":        {Ingress: []v1alpha1.Rule{{Peers: []v1alpha1.Peer{{}}}}},
		"half of it can be read":       {Ingress: []v1alpha1.Rule{{}, {Peers: []v1alpha1.Peer{{}}}}},
	} {
		s := tell(t)
		s.pod("web", "10.0.0.1")
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "allow"}, Spec: broken}
		pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeIngress}
		for range 2 { // as it is told of again and again
			if s.setPolicyEndpoint(pe) == nil {
				t.Errorf("%s: it can be read", name)
			}
			s.closed("10.0.0.9", "10.0.0.1", 80)
		}
		s.endpoint("allow", everyPod, v1alpha1.Rule{})
		s.open("10.0.0.9", "10.0.0.1", 80)
	}
}

// Anybody may write slices, and the API server cannot hold one against another.
func TestSlicesThatContradictEachOther(t *testing.T) {
	s := tell(t)
	s.pod("web", "10.0.0.1")
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.endpoint("allow", everyPod, fromGroup("g"))

	second := &v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "another-head"}}
	second.Spec = v1alpha1.PolicyEndpointSliceSpec{Group: "g", Index: 0, Slices: 3, Addresses: []v1alpha1.CIDR{"10.0.0.3/32"}}
	if err := s.setSlice(second); err != nil {
		t.Fatal(err)
	}
	s.closed("10.0.0.3", "10.0.0.1", 80) // of two heads the larger counts, and two slices are missing
	s.open("10.0.0.2", "10.0.0.1", 80)
	s.slice("shop", "g", 2, 0, "10.0.0.2/32")
	s.closed("10.0.0.3", "10.0.0.1", 80) // one is missing
	s.slice("shop", "g", 1, 0)
	s.open("10.0.0.3", "10.0.0.1", 80)
	s.slice("shop", "g", 7, 0, "10.0.0.7/32") // beyond the last
	s.closed("10.0.0.7", "10.0.0.1", 80)
	s.sliceGone("shop", "g", 0)
	s.open("10.0.0.2", "10.0.0.1", 80) // another slice has it too
	s.slice("shop", "g", 2, 0, "0.0.0.0/0", "10.0.0.8/24")
	s.open("192.0.2.1", "10.0.0.1", 80)
	s.slice("shop", "g", 2, 0)
	s.closed("192.0.2.1", "10.0.0.1", 80)
	s.closed("10.0.0.2", "10.0.0.1", 80)
	s.open("10.0.0.3", "10.0.0.1", 80)
}

// A policy whose time ends between two questions is waited for or isolates: nothing opens its pods in between.
func TestAPolicyIsWaitedForOrLate(t *testing.T) {
	for range 2000 {
		s := tell(t)
		s.pod("web", "10.0.0.1")
		s.endpoint("allow", everyPod, fromGroup("none"))
		a := &Agent{state: s.state}
		e := s.policies[types.NamespacedName{Namespace: "shop", Name: "allow"}]
		e.first = time.Now().Add(200*time.Nanosecond - time.Minute)
		if !a.awaitsGroups(time.Minute) && e.active == nil {
			t.Fatal("it is not waited for, and does not isolate")
		}
	}
}

// A group that its writer moves out of the namespace is the shared one afterwards, as for an agent that starts then.
func TestAGroupThatMovesToTheSharedNamespace(t *testing.T) {
	for name, move := range map[string]func(story){
		"written first": func(s story) {
			s.slice(shared, "g", 0, 1, "10.0.0.3/32")
			s.open("10.0.0.2", "10.0.0.1", 80) // its own comes before
			s.sliceGone("shop", "g", 0)
		},
		"deleted first": func(s story) {
			s.sliceGone("shop", "g", 0)
			s.open("10.0.0.2", "10.0.0.1", 80) // there is none other
			s.slice(shared, "g", 0, 2, "10.0.0.3/32")
			s.open("10.0.0.2", "10.0.0.1", 80)
			s.slice(shared, "g", 1, 0)
		},
		"while a policy waits for the rest of it": func(s story) {
			s.slice("shop", "h", 1, 0, "10.0.0.2/32")
			s.slice(shared, "h", 0, 1, "10.0.0.3/32")
			s.endpoint("allow", everyPod, fromGroup("h"))
			s.open("10.0.0.2", "10.0.0.1", 80)
			s.sliceGone("shop", "h", 1)
			s.sliceGone("shop", "g", 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tell(t)
			s.pod("web", "10.0.0.1")
			s.slice("shop", "g", 0, 1, "10.0.0.2/32")
			s.endpoint("allow", everyPod, fromGroup("g"))
			move(s)
			s.open("10.0.0.3", "10.0.0.1", 80)
			s.closed("10.0.0.2", "10.0.0.1", 80)
			if len(s.groups) != 1 || len(s.waiting) > 0 {
				t.Errorf("groups %v, waiting %v", s.groups, s.waiting)
			}
		})
	}
}
