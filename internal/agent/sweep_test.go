package agent

import (
	"net/netip"
	"testing"

	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/policy"
)

func TestWhichLiveFlowsAreCut(t *testing.T) {
	s := tell(t)
	s.slice("shop", "g", 0, 1, "10.0.0.2/32")
	s.pod("web", "10.0.0.1")
	s.endpoint("allow", everyPod, fromGroup("g"))
	s.compiler.Commit()
	node := map[netip.Addr]bool{netip.MustParseAddr("10.9.9.9"): true}
	for _, tc := range []struct {
		name, from, to string
		cut            bool
	}{
		{"from a peer", "10.0.0.2", "10.0.0.1", false},
		{"from somebody else", "10.0.0.3", "10.0.0.1", true},
		{"to the outside, where nothing isolates", "10.0.0.1", "10.0.0.3", false},
		{"from the node, as the kubelet's probes", "10.9.9.9", "10.0.0.1", false},
		{"to itself", "10.0.0.1", "10.0.0.1", false},
		{"of nobody here", "10.0.0.3", "10.0.0.4", false},
	} {
		f := policy.Flow{Source: netip.MustParseAddr(tc.from), Destination: netip.MustParseAddr(tc.to), Protocol: policy.TCP, Port: 80}
		if got := refused(s.compiler.Tables(), f, node); got != tc.cut {
			t.Errorf("%s: cut %v, want %v", tc.name, got, tc.cut)
		}
	}
	audited := s.compiler.Tables()
	for addr, p := range audited.Pods {
		p.Flags |= compiler.Audit
		audited.Pods[addr] = p
	}
	f := policy.Flow{Source: netip.MustParseAddr("10.0.0.3"), Destination: netip.MustParseAddr("10.0.0.1"), Protocol: policy.TCP, Port: 80}
	if refused(audited, f, node) {
		t.Error("a flow of a pod that is only audited is cut")
	}
}
