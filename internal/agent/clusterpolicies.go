package agent

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/node"
	"github.com/kidoban/kidoban/internal/stream"
	"github.com/kidoban/kidoban/internal/stream/client"
)

// followClusterPolicies feeds the state with all ClusterPolicyEndpoints until the context is done.
func (a *Agent) followClusterPolicies(ctx context.Context) {
	synced, err := a.subscribe(ctx, a.cache, &v1alpha1.ClusterPolicyEndpoint{}, a.onClusterPolicyEndpoint, a.onClusterPolicyEndpointGone)
	if err != nil {
		return // the context is done
	}
	if toolscache.WaitForCacheSync(ctx.Done(), synced) {
		a.state.update(ctx, func(now time.Time, n *node.Node) { n.ClusterSynced(now) })
	}
}

func (a *Agent) onClusterPolicyEndpoint(ctx context.Context, _, obj any) {
	cpe := obj.(*v1alpha1.ClusterPolicyEndpoint)
	var err error
	a.state.update(ctx, func(now time.Time, n *node.Node) { err = n.SetClusterPolicyEndpoint(now, cpe) })
	a.reject("ClusterPolicyEndpoint", cpe, err)
}

func (a *Agent) onClusterPolicyEndpointGone(ctx context.Context, obj any) {
	name := last[*v1alpha1.ClusterPolicyEndpoint](obj).Name
	a.state.update(ctx, func(now time.Time, n *node.Node) { n.DeleteClusterPolicyEndpoint(now, name) })
	a.deleted.endpointGone()
}

// policyKey names a policy in reports to the controller; one without a namespace is cluster-wide.
func policyKey(name types.NamespacedName) client.PolicyKey {
	kind := stream.PolicyState_POLICY_ENDPOINT
	if name.Namespace == "" {
		kind = stream.PolicyState_CLUSTER_POLICY_ENDPOINT
	}
	return client.PolicyKey{Kind: kind, Namespace: name.Namespace, Name: name.Name}
}
