package agent

import (
	"net/netip"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
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
	set := s.compiler.Tables().Pods[netip.MustParseAddr("10.0.0.1")].Sets[policy.Egress]
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
