package node

import (
	"net/netip"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// A namespace is deleted while its pods run for their grace period. Its policies and their groups are deleted in any order.
func TestATerminatingNamespaceKeepsItsPolicies(t *testing.T) {
	allow := types.NamespacedName{Namespace: "shop", Name: "allow"}
	terminate := func(s story) { s.SetNamespace(start, "shop", nil, true) }
	for _, order := range []struct {
		name  string
		first func(s story)
		then  func(s story)
	}{
		{"the namespace is seen first", terminate, func(s story) { s.DeletePolicyEndpoint(start, allow); s.sliceGone("shop", "g", 0) }},
		{"the policy is seen first", func(s story) { s.DeletePolicyEndpoint(start, allow); s.sliceGone("shop", "g", 0) }, terminate},
		{"the group is seen first", func(s story) { s.sliceGone("shop", "g", 0); s.DeletePolicyEndpoint(start, allow) }, terminate},
	} {
		t.Run(order.name, func(t *testing.T) {
			s := newStory(t)
			s.slice("shop", "g", 0, 1, "10.0.0.2/32")
			s.pod("web", "10.0.0.1")
			s.endpoint("allow", everyPod, fromGroup("g"))
			order.first(s)
			s.denied("10.0.0.9", "10.0.0.1", 80)
			order.then(s)
			s.removeDeleted(start.Add(time.Hour))
			s.allowed("10.0.0.2", "10.0.0.1", 80)
			s.denied("10.0.0.9", "10.0.0.1", 80)
			if len(s.PolicyReports()) != 0 {
				t.Error("a deleted policy is reported")
			}
			s.forgetPod(types.NamespacedName{Namespace: "shop", Name: "web"})
			s.ForgetNamespace(start.Add(IdlePatience), "shop")
			if n := len(s.policies) + len(s.groups) + len(s.groupUsers); n > 0 {
				t.Errorf("something is left: %v %v", s.policies, s.groups)
			}
		})
	}
}

func TestADeletedPolicyOfALiveNamespaceGoes(t *testing.T) {
	s := newStory(t)
	s.SetNamespace(start, "shop", nil, false)
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod)
	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "allow"})
	s.removeDeleted(start.Add(DeletionPatience - 1))
	s.denied("10.0.0.9", "10.0.0.1", 80)
	s.removeDeleted(start.Add(DeletionPatience))
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}

// A policy that still waits for its groups when it is deleted with its namespace isolates its pods.
func TestAWaitingPolicyOfATerminatingNamespaceIsolates(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.SetNamespace(start, "shop", nil, true)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "allow"})
	s.denied("10.0.0.9", "10.0.0.1", 80)
}

// An agent that starts does not see the policies that were deleted before, so it isolates the pods that still run.
func TestAnAgentThatStartsIsolatesThePodsOfATerminatingNamespace(t *testing.T) {
	s := newStory(t)
	s.namespaces["shop"] = newNamespace()
	s.SetNamespace(start, "shop", nil, true)
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.pod("db", "10.0.0.3")
	s.NamespaceSynced(start, "shop")
	s.allowed("10.0.0.2", "10.0.0.1", 80)
	s.denied("10.0.0.9", "10.0.0.1", 80)
	if !s.isolatesEgress() {
		t.Error("a direction that no policy is left for is open")
	}
	s.DeletePolicyEndpoint(start, types.NamespacedName{Namespace: "shop", Name: "allow"})
	s.denied("10.0.0.9", "10.0.0.1", 80)
	// Another namespace of the same name, later.
	s.SetNamespace(start.Add(time.Minute), "shop", nil, false)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
	if s.isolatesEgress() {
		t.Error("the pods of the new namespace are isolated")
	}
}

// isolatesEgress reports whether the pod 10.0.0.1 cannot reach an address.
func (s story) isolatesEgress() bool {
	s.Commit()
	f := policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: netip.MustParseAddr("10.0.0.9"), Protocol: policy.TCP, Port: 80}
	d, _ := s.Maps().Lookup(policy.Egress, f)
	return d.Action == policy.Deny
}

// A live namespace whose pods no policy selects stays open when it is deleted.
func TestATerminatingNamespaceWithoutPoliciesStaysOpen(t *testing.T) {
	s := newStory(t)
	s.pod("web", "10.0.0.1")
	s.SetNamespace(start, "shop", nil, true)
	s.allowed("10.0.0.9", "10.0.0.1", 80)
}
