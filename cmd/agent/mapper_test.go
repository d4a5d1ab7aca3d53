package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/agent"
	"github.com/kidoban/kidoban/internal/policy"
)

// An agent asks whether policies exist with the kinds that it knows from the start.
func TestAgentsAskForPoliciesOfBothKinds(t *testing.T) {
	have := map[string]string{
		"/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/web":           "1",
		"/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/no-tenant": "2",
		"/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies/newer":      "3",
		"/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies":               "list",
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/busy" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		uid, ok := have[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: 404})
			return
		}
		if uid == "list" {
			_ = json.NewEncoder(w).Encode(map[string]any{
				"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
				"items": []any{map[string]any{"metadata": map[string]any{"namespace": "shop", "name": "web", "uid": "1"}}},
			})
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": map[string]any{"name": "x", "uid": uid},
		})
	}))
	defer server.Close()
	config := &rest.Config{Host: server.URL}
	m, err := mapper()(config, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Mapper: m})
	if err != nil {
		t.Fatal(err)
	}
	policies := agent.NewPolicies(c)
	for _, test := range []struct {
		id   policy.ID
		want bool
	}{
		{policy.ID{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", UID: "1"}, true},
		{policy.ID{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", UID: "0"}, false}, // another one of the name
		{policy.ID{Kind: "NetworkPolicy", Namespace: "shop", Name: "gone", UID: "1"}, false},
		{policy.ID{Kind: "ClusterNetworkPolicy", Name: "no-tenant", UID: "2"}, true},
		{policy.ID{Kind: "ClusterNetworkPolicy", Name: "newer", UID: "3"}, true}, // the API server does not serve v1alpha2
		{policy.ID{Kind: "ClusterNetworkPolicy", Name: "gone", UID: "2"}, false},
		{policy.ID{Kind: "Other", Namespace: "shop", Name: "web", UID: "1"}, false},
	} {
		if got, err := policies.Exists(t.Context(), test.id); err != nil || got != test.want {
			t.Errorf("%+v: %t, %v", test.id, got, err)
		}
	}
	if _, err := policies.Exists(t.Context(), policy.ID{Kind: "NetworkPolicy", Namespace: "shop", Name: "busy", UID: "1"}); err == nil {
		t.Error("no error where the API server does not say")
	}
	have["/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies"] = "list"
	newer, err := policies.List(t.Context(), nil)
	if want := []policy.ID{{Kind: "ClusterNetworkPolicy", Namespace: "shop", Name: "web", UID: "1"}}; err != nil || !slices.Equal(newer, want) {
		t.Errorf("listed %v of v1beta1, want %v: %v", newer, want, err)
	}
	delete(have, "/apis/policy.networking.k8s.io/v1beta1/clusternetworkpolicies")
	// The kind ClusterNetworkPolicy is not installed.
	list, err := policies.List(t.Context(), []string{"shop"})
	if want := []policy.ID{{Kind: "NetworkPolicy", Namespace: "shop", Name: "web", UID: "1"}}; err != nil || !slices.Equal(list, want) {
		t.Errorf("listed %v, want %v: %v", list, want, err)
	}
}
