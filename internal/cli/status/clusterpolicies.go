package status

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterPolicies adds the ClusterNetworkPolicies, if the cluster has the kind: each counts on all nodes with pods.
func (s *Status) clusterPolicies(ctx context.Context, c client.Client, pods []corev1.Pod, reports map[string]*report, only selection) error {
	if !only.cluster {
		return nil
	}
	var policies []cnp.ClusterNetworkPolicy
	err := command.ListClusterPolicies(ctx, c, func(page []cnp.ClusterNetworkPolicy) { policies = append(policies, page...) })
	switch {
	case isAbsent(err) || apierrors.IsForbidden(err) && only.Name != "":
		return nil
	case err != nil:
		return fmt.Errorf("list %s: %w", model.ClusterPolicyResource, err)
	}
	var endpoints v1alpha1.ClusterPolicyEndpointList
	if err := c.List(ctx, &endpoints); err != nil && !isAbsent(err) {
		return fmt.Errorf("list ClusterPolicyEndpoints: %w", err)
	}
	made := map[types.UID]*v1alpha1.ClusterPolicyEndpoint{}
	for i := range endpoints.Items {
		made[endpoints.Items[i].Spec.PolicyRef.UID] = &endpoints.Items[i]
	}
	if only.Namespace != "" { // the pods are those of one namespace
		var all corev1.PodList
		if err := c.List(ctx, &all); err != nil {
			return fmt.Errorf("list pods: %w", err)
		}
		pods = all.Items
	}
	nodes := map[string]bool{}
	for i := range pods {
		if p := &pods[i]; policy.IsPeer(p) && p.Spec.NodeName != "" {
			nodes[p.Spec.NodeName] = true
		}
	}
	for i := range policies {
		if o := &policies[i]; only.Name == "" || o.Name == only.Name {
			p := newClusterPolicy(o, made[o.UID])
			s.add(&p, o, model.ClusterPolicyKind, nodes, reports)
		}
	}
	if only.Name == "" {
		s.adminPolicies(ctx, c)
	}
	return nil
}

// isAbsent reports whether the cluster does not have a kind.
func isAbsent(err error) bool { return apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) }

func newClusterPolicy(o *cnp.ClusterNetworkPolicy, cpe *v1alpha1.ClusterPolicyEndpoint) Policy {
	p := Policy{
		Kind: model.ClusterPolicyKind, Name: o.Name, Generation: o.Generation, Audited: policy.IsLabelledAudit(o.Labels), Resolved: "Missing", Nodes: []NodePolicy{},
	}
	if cpe != nil {
		p.resolved(cpe.Spec.PolicyRef.Generation, cpe.Generation, cpe.Spec.Enforcement, &cpe.Status, policy.GroupKeys("", "", cpe.Spec.Ingress, cpe.Spec.Egress))
	}
	return p
}

// adminPolicies reports AdminNetworkPolicies: nothing enforces them.
func (s *Status) adminPolicies(ctx context.Context, c client.Client) {
	for _, kind := range []string{"AdminNetworkPolicy", "BaselineAdminNetworkPolicy"} {
		mapping, err := c.RESTMapper().RESTMapping(schema.GroupKind{Group: cnp.GroupVersion.Group, Kind: kind})
		if err != nil {
			continue
		}
		var list metav1.PartialObjectMetadataList
		list.SetGroupVersionKind(mapping.GroupVersionKind.GroupVersion().WithKind(kind + "List"))
		if err := c.List(ctx, &list, client.Limit(mostAdmin)); err != nil || len(list.Items) == 0 {
			continue
		}
		var names []string
		for i := range list.Items {
			names = append(names, list.Items[i].Name)
		}
		s.attend("nothing enforces %s objects, such as %s: convert them with kubectl kidoban migrate anp convert", kind, strings.Join(names, ", "))
	}
}

// mostAdmin is how many AdminNetworkPolicies a line names.
const mostAdmin = 3
