package agent

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/policy"
)

// An agent that starts while a policy has no PolicyEndpoint leaves an earlier agent's program in force, until the PolicyEndpoint is
// there, or the policy is gone.
func TestAStartWaitsForPolicyEndpointsOfPoliciesInForce(t *testing.T) {
	for _, returns := range []bool{true, false} {
		var deleted atomic.Bool
		var failure atomic.Pointer[error]
		away := errors.New("the API server is away")
		failure.Store(&away)
		policies := fakePolicies{
			exists: func(context.Context, policy.ID) (bool, error) { return !deleted.Load(), nil },
			list: func(namespaces []string) ([]policy.ID, error) {
				if !slices.Equal(namespaces, []string{"shop"}) {
					t.Errorf("asked about %v", namespaces)
				}
				if err := failure.Load(); err != nil {
					return nil, *err
				}
				if deleted.Load() {
					return nil, nil
				}
				return []policy.ID{{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", UID: "u"}}, nil
			},
		}
		prepare := func(k *fakeKernel) {
			k.read = make(chan struct{})
			k.earlier = map[netip.Addr][2]bool{netip.MustParseAddr("10.0.0.1"): {true, false}}
		}
		runWith(t, func(o *Options) { o.Policies = policies }, prepare, func(r *running) {
			r.add(pod("web", "10.0.0.1"))
			close(r.kernel.read)
			r.sleep(10 * time.Minute)
			if r.kernel.attached || r.ready() == nil {
				t.Fatal("the agent has taken over while the API server was away")
			}
			failure.Store(nil)
			r.sleep(10 * time.Minute)
			if r.kernel.attached || r.metric("kidoban_agent_lost_policy_endpoints") != 1 {
				t.Fatal("the agent has taken over without the policy, or does not count it")
			}
			if n := r.logged("exist without PolicyEndpoints"); n != 1 {
				t.Errorf("logged %d times", n)
			}
			if returns {
				pe := policyEndpoint("web")
				pe.Spec.PolicyRef.UID = "u"
				r.add(pe)
			} else {
				deleted.Store(true)
			}
			r.sleep(2 * time.Second)
			if !r.kernel.attached || r.isolated("10.0.0.1") != returns {
				t.Errorf("taken over: %t, isolated: %t, want %t", r.kernel.attached, r.isolated("10.0.0.1"), returns)
			}
			if r.metric("kidoban_agent_lost_policy_endpoints") != 0 {
				t.Error("still counted")
			}
		})
	}
}

// A pod that was isolated by a policy which does not select it any more delays nothing.
func TestAStartDoesNotWaitForPoliciesThatHavePolicyEndpoints(t *testing.T) {
	policies := fakePolicies{list: func([]string) ([]policy.ID, error) { return []policy.ID{{UID: "u"}}, nil }}
	prepare := func(k *fakeKernel) {
		k.read = make(chan struct{})
		k.earlier = map[netip.Addr][2]bool{netip.MustParseAddr("10.0.0.1"): {true, true}}
	}
	runWith(t, func(o *Options) { o.Policies = policies }, prepare, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		pe := policyEndpoint("other")
		pe.Spec.PodSelector.MatchLabels = map[string]string{"app": "other"}
		pe.Spec.PolicyRef.UID = "u"
		r.add(pe)
		close(r.kernel.read)
		r.sleep(2 * time.Second)
		if !r.kernel.attached {
			t.Error("the agent has not taken over")
		}
	})
}
