package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/policy"
)

// A policy that exists stays in force without its PolicyEndpoint, also while the API server cannot say whether it exists. A
// policy that was deleted, too, is gone within a second.
func TestAPolicyStaysWithoutItsPolicyEndpoint(t *testing.T) {
	var exists atomic.Bool
	var failure atomic.Pointer[error]
	exists.Store(true)
	lookUp := func(_ context.Context, id policy.ID) (bool, error) {
		if id.Kind != "NetworkPolicy" || id.Namespace != "shop" || id.Name != "web" {
			t.Errorf("asked about %+v", id)
		}
		if err := failure.Load(); err != nil {
			return false, *err
		}
		return exists.Load(), nil
	}
	runWith(t, func(o *Options) { o.Policies = fakePolicies{exists: lookUp} }, nil, func(r *running) {
		r.add(pod("web", "10.0.0.1"))
		pe := policyEndpoint("web")
		r.add(pe)
		r.sleep(time.Second)
		if !r.isolated("10.0.0.1") {
			t.Fatal("not isolated at first")
		}
		remove(r, pe)
		r.sleep(10 * time.Minute)
		if !r.isolated("10.0.0.1") || r.metric("kidoban_agent_lost_policy_endpoints") != 1 {
			t.Error("the policy exists, and is not in force or not counted")
		}
		if n := r.logged("still exists; it stays"); n != 1 {
			t.Errorf("logged %d times", n)
		}
		away := errors.New("the API server is away")
		failure.Store(&away)
		r.sleep(time.Minute)
		if !r.isolated("10.0.0.1") {
			t.Error("open while the API server is away")
		}
		failure.Store(nil)

		r.add(pe) // it returns
		r.sleep(2 * time.Second)
		if !r.isolated("10.0.0.1") || r.metric("kidoban_agent_lost_policy_endpoints") != 0 {
			t.Error("not in force or still counted when it is back")
		}
		remove(r, pe)
		exists.Store(false)
		r.sleep(node.DeletionPatience + 100*time.Millisecond)
		if r.isolated("10.0.0.1") {
			t.Error("a deleted policy is in force")
		}
	})
}

// remove has a watch report that a PolicyEndpoint is gone.
func remove(r *running, pe *v1alpha1.PolicyEndpoint) {
	i, err := r.namespace(pe.Namespace).FakeInformerFor(r.Context(), pe)
	if err != nil {
		r.Fatal(err)
	}
	i.Delete(policy.ReadEndpoint(pe, shared))
}

// fakePolicies are Policies by functions.
type fakePolicies struct {
	exists func(context.Context, policy.ID) (bool, error)
	list   func(namespaces []string) ([]policy.ID, error)
}

func (f fakePolicies) Exists(ctx context.Context, id policy.ID) (bool, error) {
	return f.exists(ctx, id)
}

func (f fakePolicies) List(_ context.Context, namespaces []string) ([]policy.ID, error) {
	return f.list(namespaces)
}
