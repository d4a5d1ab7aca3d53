package agent

import (
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// A count is read some time after the packets, and the pod that they were of may have ended.
func TestHitsOfAPodThatHasGone(t *testing.T) {
	s := tell(t)
	s.pod("web", "10.0.0.1")
	pe := &v1alpha1.PolicyEndpoint{}
	pe.Namespace, pe.Name = "shop", "deny"
	pe.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "deny"}
	pe.Spec.PolicyTypes = []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}
	if err := s.setPolicyEndpoint(pe); err != nil {
		t.Fatal(err)
	}
	s.compiler.Commit()
	set := s.compiler.Maps().Pods[netip.MustParseAddr("10.0.0.1")].Sets[policy.Egress]
	s.deletePod(types.NamespacedName{Namespace: "shop", Name: "web"})
	s.compiler.Commit()

	h := newHits(10)
	if gone := h.update(map[dataplane.Hit]uint64{{Set: set, Verdict: dataplane.Deny}: 7}, s.state); len(gone) > 0 {
		t.Errorf("said not to be in use: %v", gone)
	}
	want := hit{agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}, "Egress", defaultDeny, "Deny"}
	if len(h.totals) != 1 || h.totals[want] != 7 {
		t.Errorf("%+v, want 7 of %+v", h.totals, want)
	}
}

// What the mode adds is no PolicyEndpoint, and in force all the same.
func TestHitsOfTheModeOutliveAFullTable(t *testing.T) {
	s := tell(t)
	s.mode = Strict
	s.pod("web", "10.0.0.1")
	s.compiler.Commit()
	rule := func() compiler.RuleID {
		for id := compiler.RuleID(1); ; id++ {
			if ref, ok := s.compiler.Rule(id); ok && ref.Direction == policy.Ingress {
				return id
			}
		}
	}()
	h := newHits(1)
	h.update(map[dataplane.Hit]uint64{{Rule: rule, Verdict: dataplane.Deny}: 7}, s.state)
	h.add(hit{policy: agentapi.PolicyRef{Kind: "NetworkPolicy", Namespace: "shop", Name: "deny"}, verdict: "Deny"}, 1, s.state)
	want := hit{agentapi.PolicyRef{Kind: agentapi.KindEnforcingMode, Name: "strict"}, "Ingress", "", "Deny"}
	if h.totals[want] != 7 || h.totals[hit{verdict: "Deny"}] != 1 {
		t.Errorf("%+v", h.totals)
	}
}
