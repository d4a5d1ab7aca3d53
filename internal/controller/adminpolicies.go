package controller

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/manager"
)

// adminKinds are the kinds that ClusterNetworkPolicy replaced, with their resources. Nothing enforces their objects.
var adminKinds = map[string]schema.GroupVersionResource{
	"AdminNetworkPolicy":         {Group: "policy.networking.k8s.io", Version: "v1alpha1", Resource: "adminnetworkpolicies"},
	"BaselineAdminNetworkPolicy": {Group: "policy.networking.k8s.io", Version: "v1alpha1", Resource: "baselineadminnetworkpolicies"},
}

// adminPoliciesInterval is how often they are counted.
const adminPoliciesInterval = time.Minute

// watchAdminPolicies counts the objects of these kinds, for a metric, while this instance leads.
func (c *Controller) watchAdminPolicies(mgr manager.Manager) error {
	client, err := metadata.NewForConfigAndClient(mgr.GetConfig(), mgr.GetHTTPClient())
	if err != nil {
		return err
	}
	log := mgr.GetLogger().WithName("adminnetworkpolicies")
	return mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		tick := time.NewTicker(adminPoliciesInterval)
		defer tick.Stop()
		for {
			for kind, resource := range adminKinds {
				n, err := count(ctx, client.Resource(resource))
				if err != nil {
					log.V(1).Info("Cannot count policies of a kind", "kind", kind, "reason", err.Error())
					continue
				}
				unenforcedGauge.WithLabelValues(kind).Set(float64(n))
			}
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
		}
	}))
}

// count returns the number of objects; 0 where the cluster does not have the kind. It reads one of them.
func count(ctx context.Context, client metadata.Getter) (int64, error) {
	list, err := client.List(ctx, metav1.ListOptions{Limit: 1})
	switch {
	case apierrors.IsNotFound(err):
		return 0, nil
	case err != nil:
		return 0, err
	}
	n := int64(len(list.Items))
	if list.RemainingItemCount != nil {
		n += *list.RemainingItemCount
	}
	return n, nil
}
