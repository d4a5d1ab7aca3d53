package main

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// writtenGroup is a group on the API server.
type writtenGroup struct {
	selector  groupSelector
	listed    []types.NamespacedName
	slices    map[types.NamespacedName]bool
	addresses []netip.Addr
}

// expectRight fails if an object on the API server does not follow from the policies and pods. It evaluates
// every selector on every pod, without the resolver's code.
func (c *cluster) expectRight(ctx context.Context) error {
	api, err := c.api()
	if err != nil {
		return err
	}
	groups, err := c.expectGroups(ctx, api)
	if err != nil {
		return err
	}
	if err := c.expectEndpoints(ctx, api, groups); err != nil {
		return err
	}
	return c.expectClusterEndpoints(ctx, api, groups)
}

func compareNames(a, b types.NamespacedName) int { return strings.Compare(a.String(), b.String()) }

func (c *cluster) expectGroups(ctx context.Context, api client.Reader) (map[policy.GroupKey]*writtenGroup, error) {
	var list v1alpha1.PolicyEndpointSliceList
	if err := api.List(ctx, &list); err != nil {
		return nil, err
	}
	groups := map[policy.GroupKey]*writtenGroup{}
	for i := range list.Items {
		pes := &list.Items[i]
		v := &view{}
		v.Metadata.Namespace = pes.Namespace
		v.Spec.Groups, v.Spec.Addresses, v.Spec.Classes = pes.Spec.Groups, pes.Spec.Addresses, pes.Spec.Classes
		for key, part := range partsOf(v) {
			g := groups[key]
			if g == nil {
				g = &writtenGroup{slices: map[types.NamespacedName]bool{}}
				groups[key] = g
			}
			g.slices[client.ObjectKeyFromObject(pes)] = true
			if part.slices != nil {
				g.listed = append(g.listed, part.slices...)
				var err error
				if g.selector, err = parseGroupSelector(key.Namespace, part.selector); err != nil {
					return nil, err
				}
			}
			for _, cidr := range part.addresses {
				g.addresses = append(g.addresses, addressOf(cidr))
			}
		}
	}
	byNamespace := map[int][]*pod{}
	for i := range c.pods {
		byNamespace[c.pods[i].namespace] = append(byNamespace[c.pods[i].namespace], &c.pods[i])
	}
	for key, g := range groups {
		slices.SortFunc(g.listed, compareNames)
		if has := slices.SortedFunc(maps.Keys(g.slices), compareNames); !slices.Equal(has, g.listed) {
			return nil, fmt.Errorf("group %s has the slices %v and lists %v", key, has, g.listed)
		}
		var want []netip.Addr
		for ns := range c.namespaces {
			if g.selector.namespaces == nil && namespaceName(ns) != g.selector.namespace || g.selector.namespaces != nil && !g.selector.namespaces.Matches(labels.Set(namespaceLabels(ns))) {
				continue
			}
			for _, p := range byNamespace[ns] {
				if g.selector.pods.Matches(labels.Set(p.labels)) {
					want = append(want, p.address)
				}
			}
		}
		slices.SortFunc(want, netip.Addr.Compare)
		slices.SortFunc(g.addresses, netip.Addr.Compare)
		if !slices.Equal(want, g.addresses) {
			return nil, fmt.Errorf("group %s (%s) has %d addresses, want the %d of its pods", key, g.selector, len(g.addresses), len(want))
		}
	}
	return groups, nil
}

// expectEndpoints fails if a policy has no PolicyEndpoint, or one that refers to other groups than those of
// the policy's peers.
func (c *cluster) expectEndpoints(ctx context.Context, api client.Reader, groups map[policy.GroupKey]*writtenGroup) error {
	policies, err := c.clients.NetworkingV1().NetworkPolicies("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	var list v1alpha1.PolicyEndpointList
	if err := api.List(ctx, &list); err != nil {
		return err
	}
	byPolicy := map[string]*v1alpha1.PolicyEndpoint{}
	for i := range list.Items {
		byPolicy[string(list.Items[i].Spec.PolicyRef.UID)] = &list.Items[i]
	}
	if len(list.Items) != len(policies.Items) {
		return fmt.Errorf("%d PolicyEndpoints of %d policies", len(list.Items), len(policies.Items))
	}
	for i := range policies.Items {
		np := &policies.Items[i]
		pe := byPolicy[string(np.UID)]
		if pe == nil || pe.Spec.PolicyRef.Generation != np.Generation || pe.Status.ObservedGeneration != pe.Generation {
			return fmt.Errorf("policy %s/%s has no PolicyEndpoint that is up to date", np.Namespace, np.Name)
		}
		peers, err := peerSelectors(np)
		if err != nil {
			return err
		}
		if err := expectGroupsOf(peers, policy.GroupKeys(pe.Namespace, sharedNamespace, pe.Spec.Ingress, pe.Spec.Egress), groups); err != nil {
			return fmt.Errorf("PolicyEndpoint %s/%s: %w", pe.Namespace, pe.Name, err)
		}
	}
	return nil
}

// expectGroupsOf fails if the groups that an object refers to are not those of its policy's peers.
func expectGroupsOf(peers []groupSelector, refers []policy.GroupKey, groups map[policy.GroupKey]*writtenGroup) error {
	want, got := map[string]bool{}, map[string]bool{}
	for _, s := range peers {
		want[s.String()] = true
	}
	for _, key := range refers {
		g := groups[key]
		if g == nil {
			return fmt.Errorf("refers to group %s, which does not exist", key)
		}
		got[g.selector.String()] = true
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Errorf("refers to the groups of %v, and its policy's peers are %v", got, want)
	}
	return nil
}
