package agent

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// A count is read some time after the packets, and the pod that they were of may have ended.
func TestHitsOfAPodThatHasGone(t *testing.T) {
	s := newState(node.Options{SharedNamespace: shared})
	s.node.SetPod(start, pod("web", "10.0.0.1"))
	s.node.NamespaceSynced(start, "shop")
	pe := policyEndpoint("deny")
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	if err := s.node.SetPolicyEndpoint(start, policy.ReadEndpoint(pe, shared)); err != nil {
		t.Fatal(err)
	}
	s.commit(false)
	set := s.node.Maps().Pods[netip.MustParseAddr("10.0.0.1")].Sets[policy.Egress]
	s.node.DeletePod(start, pod("web", "10.0.0.1"))
	s.commit(false)

	h := newHitCounter(nil, s, 10)
	if unused := h.add(map[dataplane.Hit]uint64{{Set: set, Verdict: events.Deny}: 7}, s.node); len(unused) > 0 {
		t.Errorf("reported as unused: %v", unused)
	}
	want := hit{agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}, "Egress", defaultDeny, "Deny"}
	if len(h.totals) != 1 || h.totals[want] != 7 {
		t.Errorf("%+v, want 7 of %+v", h.totals, want)
	}
}

// What would be isolated is counted for the audited policies, and not for enforced ones beside them.
func TestHitsOfAuditedPolicies(t *testing.T) {
	s := newState(node.Options{SharedNamespace: shared})
	s.node.SetPod(start, pod("web", "10.0.0.1"))
	s.node.NamespaceSynced(start, "shop")
	audited, enforced := policyEndpoint("audited"), policyEndpoint("enforced")
	audited.Spec.Enforcement = v1alpha1.EnforcementAudit
	for _, pe := range []*v1alpha1.PolicyEndpoint{audited, enforced} {
		pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
		if err := s.node.SetPolicyEndpoint(start, policy.ReadEndpoint(pe, shared)); err != nil {
			t.Fatal(err)
		}
	}
	s.commit(false)
	entry := s.node.Maps().Pods[netip.MustParseAddr("10.0.0.1")]
	h := newHitCounter(nil, s, 10)
	h.add(map[dataplane.Hit]uint64{
		{Set: entry.Sets[policy.Egress], Verdict: events.Deny}:           7,
		{Set: entry.AuditSets[policy.Egress], Verdict: events.AuditDeny}: 3,
	}, s.node)
	ref := func(name string) agentapi.PolicyRef {
		return agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: name}
	}
	if len(h.totals) != 2 || h.totals[hit{ref("enforced"), "Egress", defaultDeny, "Deny"}] != 7 ||
		h.totals[hit{ref("audited"), "Egress", defaultDeny, "AuditDeny"}] != 3 {
		t.Errorf("%+v", h.totals)
	}
	refs, known := names{state: s}.Audited(entry.AuditSets[policy.Egress])
	if !known || len(refs) != 1 || refs[0] != ref("audited") {
		t.Errorf("audited in the set: %v", refs)
	}
	if refs, known := (names{state: s}).Audited(entry.Sets[policy.Egress]); !known || len(refs) != 0 {
		t.Errorf("audited in the set of enforced policies: %v", refs)
	}
}

// The mode's own policies have no PolicyEndpoint, and are in force all the same.
func TestHitsOfTheModeStayWhereSeriesAreDropped(t *testing.T) {
	s := newState(node.Options{SharedNamespace: shared, Mode: node.Strict})
	s.node.SetPod(start, pod("web", "10.0.0.1"))
	s.node.NamespaceSynced(start, "shop")
	s.commit(false)
	rule := func() compiler.RuleID {
		for id := compiler.RuleID(1); ; id++ {
			if ref, ok := s.node.Rule(id); ok && ref.Direction == policy.Ingress {
				return id
			}
		}
	}()
	h := newHitCounter(nil, s, 1)
	h.add(map[dataplane.Hit]uint64{{Rule: rule, Verdict: events.Deny}: 7}, s.node)
	h.addTo(hit{policy: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}, verdict: "Deny"}, 1, s.node)
	want := hit{agentapi.PolicyRef{Kind: agentapi.KindEnforcingMode, Name: "strict"}, "Ingress", "", "Deny"}
	if h.totals[want] != 7 || h.totals[hit{verdict: "Deny"}] != 1 {
		t.Errorf("%+v", h.totals)
	}
}
