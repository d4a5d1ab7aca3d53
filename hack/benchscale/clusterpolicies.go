package main

import (
	"context"
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
	"github.com/kidoban/kidoban/internal/policy"
)

// clusterPolicyKinds is how many kinds of ClusterNetworkPolicies a load has.
const clusterPolicyKinds = 5

// allClusterPolicies draws the ClusterNetworkPolicies, five kinds in turn.
func (l *load) allClusterPolicies() []*cnp.ClusterNetworkPolicy {
	var out []*cnp.ClusterNetworkPolicy
	for k := range l.clusterPolicies {
		out = append(out, l.clusterPolicy(k))
	}
	return out
}

func (l *load) clusterPolicy(k int) *cnp.ClusterNetworkPolicy {
	np := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{
		Name: fmt.Sprintf("policy-%02d", k), UID: types.UID(fmt.Sprintf("cluster-%d", k)), Generation: 1,
	}}
	s := &np.Spec
	s.Tier, s.Priority = cnp.AdminTier, int32(k)
	everyone := metav1.LabelSelector{}
	team := matching("team", fmt.Sprintf("team-%03d", k%(l.namespaces/teamSize)))
	pods := func(namespaces metav1.LabelSelector, pods *metav1.LabelSelector) *cnp.NamespacedPod {
		return &cnp.NamespacedPod{NamespaceSelector: namespaces, PodSelector: *pods}
	}
	first := *matching(corev1.LabelMetadataName, namespaceName(0))
	ingress := func(action cnp.ClusterNetworkPolicyRuleAction, from cnp.ClusterNetworkPolicyIngressPeer) {
		s.Ingress = append(s.Ingress, cnp.ClusterNetworkPolicyIngressRule{Action: action, From: []cnp.ClusterNetworkPolicyIngressPeer{from}})
	}
	egress := func(action cnp.ClusterNetworkPolicyRuleAction, to cnp.ClusterNetworkPolicyEgressPeer) {
		s.Egress = append(s.Egress, cnp.ClusterNetworkPolicyEgressRule{Action: action, To: []cnp.ClusterNetworkPolicyEgressPeer{to}})
	}
	switch k % clusterPolicyKinds {
	case 0: // monitoring and DNS, for everyone
		s.Subject.Namespaces = &everyone
		ingress(cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyIngressPeer{Pods: pods(first, matching("app", "monitoring"))})
		egress(cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyEgressPeer{Pods: pods(first, matching("app", "dns"))})
	case 1: // a team without the staging namespaces
		s.Subject.Namespaces = team
		ingress(cnp.ClusterNetworkPolicyRuleActionPass, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: team})
		ingress(cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: matching("stage", "staging")})
	case 2: // the metadata service
		s.Subject.Namespaces = &everyone
		egress(cnp.ClusterNetworkPolicyRuleActionDeny, cnp.ClusterNetworkPolicyEgressPeer{Networks: []cnp.CIDR{cnp.CIDR(fmt.Sprintf("169.254.%d.254/32", k))}})
	case 3: // one app of all namespaces
		app := matching("app", fmt.Sprintf("app-%02d", k%apps))
		s.Subject.Pods = pods(everyone, app)
		ingress(cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyIngressPeer{Pods: pods(*matching("stage", "production"), app)})
	case 4: // every pod, to every pod
		s.Tier = cnp.BaselineTier
		s.Subject.Namespaces = &everyone
		ingress(cnp.ClusterNetworkPolicyRuleActionAccept, cnp.ClusterNetworkPolicyIngressPeer{Namespaces: &everyone})
	}
	return np
}

// clusterPeers lists the selectors of a ClusterNetworkPolicy's peers.
func clusterPeers(np *cnp.ClusterNetworkPolicy) ([]groupSelector, error) {
	var out []groupSelector
	add := func(namespaces *metav1.LabelSelector, pods *cnp.NamespacedPod) error {
		var podSelector *metav1.LabelSelector
		switch {
		case pods != nil:
			namespaces, podSelector = &pods.NamespaceSelector, &pods.PodSelector
		case namespaces == nil: // networks
			return nil
		}
		s, err := parseSelectors("", namespaces, podSelector)
		out = append(out, s)
		return err
	}
	for _, r := range np.Spec.Ingress {
		for _, p := range r.From {
			if err := add(p.Namespaces, p.Pods); err != nil {
				return nil, err
			}
		}
	}
	for _, r := range np.Spec.Egress {
		for _, p := range r.To {
			if err := add(p.Namespaces, p.Pods); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// api returns a client of both kinds of objects.
func (c *cluster) api() (client.Client, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	if err := cnp.Install(scheme); err != nil {
		return nil, err
	}
	return client.New(c.config, client.Options{Scheme: scheme})
}

// createClusterPolicies installs the kind and creates the policies.
func (c *cluster) createClusterPolicies(ctx context.Context) error {
	if c.clusterPolicies == 0 {
		return nil
	}
	if _, err := envtest.InstallCRDs(c.config, envtest.CRDInstallOptions{
		Paths:              []string{filepath.Join(apitest.Root(), "config", "components", "cluster-network-policy")},
		ErrorIfPathMissing: true,
	}); err != nil {
		return err
	}
	api, err := c.api()
	if err != nil {
		return err
	}
	policies := c.allClusterPolicies()
	return inParallel(ctx, len(policies), func(ctx context.Context, i int) error {
		policies[i].UID = ""
		return api.Create(ctx, policies[i])
	})
}

// expectClusterEndpoints fails if a ClusterNetworkPolicy has no ClusterPolicyEndpoint, or one that refers to other groups than those of its
// peers.
func (c *cluster) expectClusterEndpoints(ctx context.Context, api client.Reader, groups map[policy.GroupKey]*writtenGroup) error {
	if c.clusterPolicies == 0 {
		return nil
	}
	var policies cnp.ClusterNetworkPolicyList
	if err := api.List(ctx, &policies); err != nil {
		return err
	}
	var list v1alpha1.ClusterPolicyEndpointList
	if err := api.List(ctx, &list); err != nil {
		return err
	}
	if len(policies.Items) != c.clusterPolicies || len(list.Items) != c.clusterPolicies {
		return fmt.Errorf("%d ClusterPolicyEndpoints of %d ClusterNetworkPolicies, want %d", len(list.Items), len(policies.Items), c.clusterPolicies)
	}
	byPolicy := map[types.UID]*v1alpha1.ClusterPolicyEndpoint{}
	for i := range list.Items {
		byPolicy[list.Items[i].Spec.PolicyRef.UID] = &list.Items[i]
	}
	for i := range policies.Items {
		np := &policies.Items[i]
		cpe := byPolicy[np.UID]
		if cpe == nil || cpe.Spec.PolicyRef.Generation != np.Generation || cpe.Status.ObservedGeneration != cpe.Generation {
			return fmt.Errorf("ClusterNetworkPolicy %s has no ClusterPolicyEndpoint that is up to date", np.Name)
		}
		peers, err := clusterPeers(np)
		if err != nil {
			return err
		}
		if err := expectGroupsOf(peers, policy.GroupKeys("", sharedNamespace, cpe.Spec.Ingress, cpe.Spec.Egress), groups); err != nil {
			return fmt.Errorf("ClusterPolicyEndpoint %s: %w", cpe.Name, err)
		}
	}
	return nil
}
