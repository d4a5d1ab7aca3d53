//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
)

// TestObjects looks at what the controller writes: one PolicyEndpoint a policy, owned by it and untouched by what pods do,
// one group for all policies that use it, and nothing that is left behind.
func TestObjects(t *testing.T) {
	fromBackend := networkingv1.NetworkPolicyPeer{PodSelector: workload("backend")}
	first := ingressPolicy("first", "database", fromBackend)
	second := ingressPolicy("second", "frontend", fromBackend)
	create(t, first, second)
	awaitInForce(t)

	eventually(t, "each policy has its PolicyEndpoint", func(ctx context.Context) error {
		for _, np := range []*networkingv1.NetworkPolicy{first, second} {
			pe, err := endpointOf(ctx, np)
			if err != nil {
				return err
			}
			if !meta.IsStatusConditionTrue(pe.Status.Conditions, v1alpha1.ConditionResolved) || pe.Status.ObservedGeneration != pe.Generation {
				return fmt.Errorf("status of %s: %+v", pe.Name, pe.Status)
			}
		}
		return nil
	})
	var before []string
	for _, np := range []*networkingv1.NetworkPolicy{first, second} {
		pe, err := endpointOf(t.Context(), np)
		if err != nil {
			t.Fatal(err)
		}
		before = append(before, pe.ResourceVersion)
		if !metav1.IsControlledBy(pe, np) {
			t.Errorf("PolicyEndpoint %s is not owned by its policy: %+v", pe.Name, pe.OwnerReferences)
		}
		get(t, np)
		if len(pe.Finalizers)+len(np.Finalizers) > 0 {
			t.Errorf("finalizers %v and %v", pe.Finalizers, np.Finalizers)
		}
	}
	if groups := allGroups(t); len(groups) != 1 {
		t.Errorf("groups %v, want one for both policies", groups)
	}

	changePods(t, func() {
		for _, pod := range pods(t, "backend") {
			if err := store.Client.Delete(t.Context(), &pod); err != nil {
				t.Fatal(err)
			}
		}
	})
	awaitInForce(t)
	for i, np := range []*networkingv1.NetworkPolicy{first, second} {
		pe, err := endpointOf(t.Context(), np)
		if err != nil {
			t.Fatal(err)
		}
		if pe.ResourceVersion != before[i] {
			t.Errorf("PolicyEndpoint %s was written though its policy is the same", pe.Name)
		}
	}

	for _, np := range []*networkingv1.NetworkPolicy{first, second} {
		if err := store.Client.Delete(t.Context(), np); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "nothing is left of the policies", func(ctx context.Context) error {
		var endpoints v1alpha1.PolicyEndpointList
		if err := store.Client.List(ctx, &endpoints); err != nil {
			return err
		}
		if n, groups := len(endpoints.Items), allGroups(t); n+len(groups) > 0 {
			return fmt.Errorf("%d PolicyEndpoints, groups %v", n, groups)
		}
		return nil
	})
}

// endpointOf is the one PolicyEndpoint of a policy.
func endpointOf(ctx context.Context, np *networkingv1.NetworkPolicy) (*v1alpha1.PolicyEndpoint, error) {
	var list v1alpha1.PolicyEndpointList
	err := store.Client.List(ctx, &list, client.InNamespace(np.Namespace), client.MatchingLabels{v1alpha1.LabelPolicyUID: string(np.UID)})
	if err != nil {
		return nil, err
	}
	if len(list.Items) != 1 {
		return nil, fmt.Errorf("policy %s has %d PolicyEndpoints", np.Name, len(list.Items))
	}
	return &list.Items[0], nil
}

// allGroups are the names of the groups of policies: all but those of trusted resolvers.
func allGroups(t *testing.T) map[string]bool {
	t.Helper()
	var list v1alpha1.PolicyEndpointSliceList
	if err := store.Client.List(t.Context(), &list); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, pes := range list.Items {
		for _, part := range pes.Spec.Groups {
			if _, ok := policy.ResolversPort(part.Name); !ok {
				out[part.Name] = true
			}
		}
	}
	return out
}
