package agent

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane"
)

// What the program has learned is listed under the patterns that policies have, both families of a name together.
func TestLearnedNamesAreThoseOfPolicies(t *testing.T) {
	run(t, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		r.add(&v1alpha1.ClusterPolicyEndpoint{
			ObjectMeta: metav1.ObjectMeta{Name: "c", UID: "1", Generation: 1},
			Spec: v1alpha1.ClusterPolicyEndpointSpec{
				PolicyRef: v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "c"}, Tier: v1alpha1.TierAdmin,
				Egress: []v1alpha1.Rule{{Action: v1alpha1.ActionAccept, Peers: []v1alpha1.Peer{{DomainNames: []v1alpha1.DomainName{"*.example.com"}}}}, {Action: v1alpha1.ActionDeny}},
			},
		})
		r.sleep(time.Second)
		r.kernel.mu.Lock()
		id := r.kernel.maps.Domains["*.example.com"].Own
		until := time.Now().Add(time.Minute)
		r.kernel.names = []dataplane.LearnedName{
			{Name: "b.example.com", Pattern: id, Addresses: map[netip.Addr]time.Time{netip.MustParseAddr("2001:db8::1"): until}},
			{Name: "a.example.com", Pattern: id, Addresses: map[netip.Addr]time.Time{netip.MustParseAddr("203.0.113.2"): until, netip.MustParseAddr("203.0.113.1"): until}},
			{Name: "b.example.com", Pattern: id, Addresses: map[netip.Addr]time.Time{netip.MustParseAddr("203.0.113.1"): until}},
			{Name: "gone.example", Pattern: id + 1, Addresses: map[netip.Addr]time.Time{netip.MustParseAddr("203.0.113.9"): until}},
		}
		r.kernel.mu.Unlock()
		list, err := r.agent.LearnedNames()
		if err != nil || id == 0 {
			t.Fatalf("pattern %d, %v", id, err)
		}
		got := ""
		for _, n := range list.Names {
			got += fmt.Sprintf("%s %s %v; ", n.Name, n.Pattern, addressesOf(n))
		}
		if want := "a.example.com *.example.com [203.0.113.1 203.0.113.2]; b.example.com *.example.com [203.0.113.1 2001:db8::1]; "; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		r.kernel.fail("LearnedNames", errors.New("no map"))
		if _, err := r.agent.LearnedNames(); err == nil {
			t.Error("no error")
		}
	})
}

func addressesOf(n agentapi.LearnedName) (out []netip.Addr) {
	for _, a := range n.Addresses {
		out = append(out, a.Address)
	}
	return out
}
