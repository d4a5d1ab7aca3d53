package command

import (
	"context"
	"strings"
	"testing"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
)

// A live cluster has the workloads that no pod runs of.
func TestLiveWorkloadsWithoutPods(t *testing.T) {
	in := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "a", Name: name} }
	ended := &corev1.Pod{ObjectMeta: in("backup-1-x"), Status: corev1.PodStatus{Phase: corev1.PodSucceeded, PodIP: "10.4.0.9"}}
	running := &corev1.Pod{ObjectMeta: in("db"), Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.4.0.1"}}
	c, err := Load(t.Context(), fake.NewClientBuilder().WithScheme(scheme).WithObjects(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, ended, running, &batchv1.CronJob{ObjectMeta: in("backup")}).Build())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range c.Workloads() {
		got = append(got, w.Kind+" "+w.String())
	}
	if text := strings.Join(got, ", "); text != "CronJob a/backup, Pod a/db" || c.Offline || len(c.Notes) > 0 {
		t.Errorf("%s; offline %v, %q", text, c.Offline, c.Notes)
	}
}

// A live cluster's ClusterNetworkPolicies are read, and one without the kind is no error.
func TestLoadClusterPolicies(t *testing.T) {
	p := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "tenants"}}
	c, err := Load(t.Context(), fake.NewClientBuilder().WithScheme(scheme).WithObjects(p).Build())
	if err != nil || len(c.ClusterPolicies) != 1 || c.ClusterPolicies[0].Name != "tenants" {
		t.Errorf("%+v, %v", c, err)
	}
	newer := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*cnp.ClusterNetworkPolicyList); ok {
				return &apimeta.NoKindMatchError{}
			}
			if l, ok := list.(*unstructured.UnstructuredList); ok && l.GetAPIVersion() == "policy.networking.k8s.io/v1beta1" {
				l.Items = []unstructured.Unstructured{{Object: map[string]any{"metadata": map[string]any{"name": "newer"}, "spec": map[string]any{"priority": int64(5)}}}}
				return nil
			}
			return c.List(ctx, list, opts...)
		},
	})
	if c, err := Load(t.Context(), newer); err != nil || len(c.ClusterPolicies) != 1 || c.ClusterPolicies[0].Spec.Priority != 5 {
		t.Errorf("where the API server has v1beta1 only: %+v, %v", c, err)
	}
	without := interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme).Build(), interceptor.Funcs{
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if _, ok := list.(*cnp.ClusterNetworkPolicyList); ok {
				return &apimeta.NoKindMatchError{}
			}
			return c.List(ctx, list, opts...)
		},
	})
	if c, err := Load(t.Context(), without); err != nil || len(c.ClusterPolicies) != 0 || len(c.Notes) != 0 {
		t.Errorf("%+v, %v", c, err)
	}
}
