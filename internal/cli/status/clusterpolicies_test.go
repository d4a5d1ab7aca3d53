package status

import (
	"bytes"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/command"
)

// A ClusterNetworkPolicy is in force on all nodes with pods, by its own kind and UID: a NetworkPolicy of the same name is another one.
func TestClusterPolicies(t *testing.T) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme, cnp.Install} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	admin := schema.GroupVersionKind{Group: cnp.GroupVersion.Group, Version: "v1alpha1", Kind: "AdminNetworkPolicy"}
	scheme.AddKnownTypeWithName(admin, &unstructured.Unstructured{})
	scheme.AddKnownTypeWithName(admin.GroupVersion().WithKind("AdminNetworkPolicyList"), &unstructured.UnstructuredList{})
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{admin.GroupVersion()})
	mapper.Add(admin, apimeta.RESTScopeRoot)
	old := &unstructured.Unstructured{}
	old.SetGroupVersionKind(admin)
	old.SetName("forgotten")

	policy := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "pay", UID: "u1", Generation: 3}}
	endpoint := &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: "pay-x", Generation: 1}}
	endpoint.Spec.PolicyRef = v1alpha1.PolicyReference{Kind: "ClusterNetworkPolicy", Name: "pay", UID: "u1", Generation: 3}
	endpoint.Spec.Ingress = []v1alpha1.Rule{}
	endpoint.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionResolved, Status: "False", ObservedGeneration: 1, Reason: "UnknownField", Message: "spec.ingress[0]"}}
	pods := []corev1.Pod{peer("n1", "a"), peer("n2", "b"), peer("", "waits")}
	for i := range pods {
		pods[i].UID = types.UID(pods[i].Name)
	}
	c := fake.NewClientBuilder().WithScheme(scheme).WithRESTMapper(mapper).WithObjects(policy, endpoint, &pods[0], &pods[1], old).Build()
	ref := agentapi.PolicyRef{Kind: "ClusterNetworkPolicy", Name: "pay"}
	inForce := agentapi.Policy{PolicyRef: ref, State: agentapi.StateInForce, Pods: 1, Realised: &agentapi.Realised{Version: agentapi.Version{UID: "u1", Generation: 3}}}
	behind := inForce
	behind.Realised = &agentapi.Realised{Version: agentapi.Version{UID: "u1", Generation: 2}}
	other := inForce
	other.PolicyRef = agentapi.PolicyRef{Kind: agentapi.KindNetworkPolicy, Namespace: "pay", Name: "pay"}
	reports := map[string]*report{"n1": {policies: []agentapi.Policy{other, inForce}}, "n2": {policies: []agentapi.Policy{behind}}}

	s := &Status{}
	if err := s.clusterPolicies(t.Context(), c, pods, reports, selection{cluster: true}); err != nil {
		t.Fatal(err)
	}
	if len(s.Policies) != 1 {
		t.Fatalf("%+v", s.Policies)
	}
	p := s.Policies[0]
	if p.Kind != "ClusterNetworkPolicy" || p.InForce != 1 || len(p.Nodes) != 2 || p.Nodes[1].State != agentapi.StatePending || p.Resolved != "False" {
		t.Errorf("%+v", p)
	}
	attention := strings.Join(s.Attention, "\n")
	for _, want := range []string{"ClusterNetworkPolicy pay: UnknownField: spec.ingress[0]", "nothing enforces AdminNetworkPolicy objects, such as forgotten"} {
		if !strings.Contains(attention, want) {
			t.Errorf("%q is not in %q", want, attention)
		}
	}
	var out bytes.Buffer
	writePolicy(&out, command.Paint(false), &p, nil)
	if !strings.HasPrefix(out.String(), "ClusterNetworkPolicy pay, generation 3: resolved False") {
		t.Error(out.String())
	}

	s = &Status{}
	only := selection{types.NamespacedName{Namespace: "default", Name: "pay"}, true}
	if err := s.clusterPolicies(t.Context(), c, nil, reports, only); err != nil || len(s.Policies) != 1 || len(s.Policies[0].Nodes) != 2 {
		t.Errorf("by its name: %+v, %v", s.Policies, err)
	}
	s, only.cluster = &Status{}, false
	if err := s.clusterPolicies(t.Context(), c, nil, reports, only); err != nil || len(s.Policies) != 0 {
		t.Errorf("of a namespace: %+v, %v", s.Policies, err)
	}
}
