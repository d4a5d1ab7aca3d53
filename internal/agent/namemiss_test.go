package agent

import (
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/dataplane"
	"github.com/kidoban/kidoban/internal/policy"
)

// A denial has the reason for which no rule with names helped, only where such a rule comes before the decision.
func TestWhyNoNameHelped(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.add(&v1alpha1.ClusterPolicyEndpoint{
			ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1", Generation: 1},
			Spec: v1alpha1.ClusterPolicyEndpointSpec{
				PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "c"}, Tier: v1alpha1.TierAdmin,
				Egress: []v1alpha1.Rule{
					{Action: v1alpha1.ActionDeny, Peers: []v1alpha1.Peer{{CIDR: "203.0.113.128/25"}}},
					{
						Action: v1alpha1.ActionAccept, Peers: []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"api.example.com"}}},
						Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 443}},
					},
					{Action: v1alpha1.ActionDeny},
				},
			},
		})
		r.sleep(time.Second)
		addr := func(last byte) netip.Addr { return netip.AddrFrom4([4]byte{203, 0, 113, last}) }
		r.kernel.mu.Lock()
		id := r.kernel.maps.Domains["api.example.com"].Own
		set := r.kernel.maps.Pods[netip.MustParseAddr("10.0.0.1")].Sets[policy.Egress]
		r.kernel.learned = map[netip.Addr][]compiler.PatternID{addr(1): {id}, addr(2): {id}, addr(3): {id + 1}, addr(200): {id}}
		r.kernel.valid = map[netip.Addr][]compiler.PatternID{addr(1): {id}, addr(3): {id + 1}}
		r.kernel.names = []dataplane.LearnedName{
			{Name: "api.example.com", Pattern: id, Addresses: map[netip.Addr]time.Time{addr(2): {}}},
			{Name: "other.example", Pattern: id + 1, Addresses: map[netip.Addr]time.Time{addr(3): {}}},
		}
		r.kernel.misses = map[netip.Addr]dataplane.Miss{
			addr(4):   {Reason: dataplane.MissUntrusted, Name: "api.example.com"},
			addr(5):   {Reason: dataplane.MissLimit, Name: "api.example.com"},
			addr(6):   {Reason: dataplane.MissOtherName, Name: "api.example.com.svc"},
			addr(7):   {Reason: dataplane.MissExpired, Name: "api.example.com"},
			addr(9):   {Reason: dataplane.MissHint, Name: "api.example.com"},
			addr(201): {Reason: dataplane.MissOtherName, Name: "x"},
		}
		r.kernel.mu.Unlock()
		directory := r.agent.Names()
		for _, tc := range []struct {
			last byte
			want agentapi.NameMiss
		}{
			{1, agentapi.NameMiss{}}, // the name is valid: another port was asked for
			{2, agentapi.NameMiss{Reason: "name-expired", Name: "api.example.com"}},
			{3, agentapi.NameMiss{Reason: "name-other", Name: "other.example"}},
			{4, agentapi.NameMiss{Reason: "name-untrusted-resolver", Name: "api.example.com"}},
			{5, agentapi.NameMiss{Reason: "name-limit", Name: "api.example.com"}},
			{6, agentapi.NameMiss{Reason: "name-other", Name: "api.example.com.svc"}},
			{7, agentapi.NameMiss{Reason: "name-expired", Name: "api.example.com"}},
			{8, agentapi.NameMiss{}},
			{9, agentapi.NameMiss{Reason: "name-https-hint", Name: "api.example.com"}},
			{200, agentapi.NameMiss{}}, // an earlier Deny
			{201, agentapi.NameMiss{}},
		} {
			var got agentapi.NameMiss
			if m := directory.NameMiss(set, policy.Flow{Source: netip.MustParseAddr("10.0.0.1"), Destination: addr(tc.last), Protocol: policy.TCP, Port: 443}); m != nil {
				got = *m
			}
			if got != tc.want {
				t.Errorf("%v: %+v, want %+v", addr(tc.last), got, tc.want)
			}
		}
	})
}
