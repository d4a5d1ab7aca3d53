package v1alpha1_test

import (
	"encoding/json"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

const newerPolicyEndpoint = `
apiVersion: networking.kidoban.dev/v1alpha1
kind: PolicyEndpoint
metadata: {namespace: shop, name: a, newer: 1}
spec:
  policyRef: {kind: NetworkPolicy, name: a}
  newer: {a: 1}
  podSelector: {matchLabels: {app: web}, matchNewer: []}
  policyTypes: [Ingress]
  ingress:
  - action: Allow
  - action: Allow
    peers: [{cidr: 10.0.0.0/8, newer: 1}]
    ports: [{port: 80}]
status: {newer: 1}
`

const newerClusterPolicyEndpoint = `
apiVersion: networking.kidoban.dev/v1alpha1
kind: ClusterPolicyEndpoint
metadata: {name: a}
spec:
  policyRef: {kind: ClusterNetworkPolicy, name: a}
  tier: Admin
  priority: 7
  subject: {namespaceSelector: {}, podSelector: {}, newer: 1}
`

// The decoders are those of typed clients, of kubectl's plugin, and of conversion from unstructured objects.
func TestUnknownFieldsAreKept(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	for name, decode := range map[string]func(data []byte, into runtime.Object) error{
		"client": func(data []byte, into runtime.Object) error {
			data, err := yaml.YAMLToJSON(data)
			if err != nil {
				return err
			}
			_, _, err = serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode(data, nil, into)
			return err
		},
		"yaml": func(data []byte, into runtime.Object) error { return yaml.Unmarshal(data, into) },
		"unstructured": func(data []byte, into runtime.Object) error {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal(data, u); err != nil {
				return err
			}
			return runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into)
		},
	} {
		t.Run(name, func(t *testing.T) {
			pe := &v1alpha1.PolicyEndpoint{}
			if err := decode([]byte(newerPolicyEndpoint), pe); err != nil {
				t.Fatal(err)
			}
			want := []string{"newer", "podSelector.matchNewer", "ingress[1].peers[0].newer"}
			slices.Sort(want)
			slices.Sort(pe.Spec.UnknownFields)
			if !slices.Equal(pe.Spec.UnknownFields, want) {
				t.Errorf("unknown fields %q, want %q", pe.Spec.UnknownFields, want)
			}
			if pe.Spec.PolicyRef.Name != "a" || pe.Spec.Ingress[1].Peers[0].CIDR != "10.0.0.0/8" || pe.Spec.PodSelector.MatchLabels["app"] != "web" {
				t.Errorf("known fields: %+v", pe.Spec)
			}
			cpe := &v1alpha1.ClusterPolicyEndpoint{}
			if err := decode([]byte(newerClusterPolicyEndpoint), cpe); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(cpe.Spec.UnknownFields, []string{"subject.newer"}) || cpe.Spec.Priority != 7 {
				t.Errorf("unknown fields %q, priority %d", cpe.Spec.UnknownFields, cpe.Spec.Priority)
			}
		})
	}
}

func TestUnknownFieldsAreNotWritten(t *testing.T) {
	pe := &v1alpha1.PolicyEndpoint{}
	if err := yaml.Unmarshal([]byte(newerPolicyEndpoint), pe); err != nil {
		t.Fatal(err)
	}
	dropped := &v1alpha1.PolicyEndpoint{}
	data, err := json.Marshal(pe)
	if err != nil {
		t.Fatal(err)
	}
	dropped.Spec.UnknownFields = []string{"of what was decoded before"}
	if err := json.Unmarshal(data, dropped); err != nil {
		t.Fatal(err)
	}
	if len(dropped.Spec.UnknownFields) > 0 {
		t.Errorf("%s has unknown fields %q", data, dropped.Spec.UnknownFields)
	}

	// A controller that compares the object with the one that it would write finds a difference, and writes.
	if copied := pe.DeepCopy(); !equality.Semantic.DeepEqual(copied, pe) {
		t.Error("a deep copy differs")
	}
	if equality.Semantic.DeepEqual(&dropped.Spec, &pe.Spec) {
		t.Error("a spec with unknown fields equals the spec without them")
	}
	known := pe.Spec.DeepCopy()
	known.UnknownFields = nil
	if !equality.Semantic.DeepEqual(&dropped.Spec, known) {
		t.Errorf("written and read again: %+v, want %+v", dropped.Spec, known)
	}
}

func TestABrokenSpecIsAnError(t *testing.T) {
	for _, data := range []string{`{"spec": {"policyTypes": "Ingress"}}`, `{"spec": []}`, `{"spec": {`} {
		if err := json.Unmarshal([]byte(data), &v1alpha1.PolicyEndpoint{}); err == nil {
			t.Errorf("%s is decoded", data)
		}
	}
	if err := json.Unmarshal([]byte(`{"spec": null}`), &v1alpha1.PolicyEndpoint{}); err != nil {
		t.Error(err)
	}
}
