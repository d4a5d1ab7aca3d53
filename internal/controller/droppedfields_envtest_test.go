//go:build envtest

package controller

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
)

// The API server accepts an object with a field that its CRD does not have, and says that it dropped it.
func TestTheAPIServerReportsDroppedFields(t *testing.T) {
	config := rest.CopyConfig(admin)
	WatchDroppedFields(config, logr.Discard())
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "dropped-fields"
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}); err != nil {
		t.Fatal(err)
	}
	counter := droppedFields.WithLabelValues("policyendpoints." + v1alpha1.GroupVersion.Group)
	before := testutil.ToFloat64(counter)
	sample, err := os.ReadFile(filepath.Join(apitest.Root(), "config", "samples", "networking_v1alpha1_policyendpoint.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pe := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(sample, &pe.Object); err != nil {
		t.Fatal(err)
	}
	pe.SetNamespace(namespace)
	if err := unstructured.SetNestedField(pe.Object, true, "spec", "fieldOfALaterVersion"); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), pe); err != nil {
		t.Fatal(err)
	}
	if got := testutil.ToFloat64(counter) - before; got != 1 {
		t.Errorf("counted %v dropped fields, want 1", got)
	}
}
