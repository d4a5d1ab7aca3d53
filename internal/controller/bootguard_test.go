//go:build envtest

package controller

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/apitest"
)

const tolerating = "tolerate-missing-plugins.kidoban.dev"

// Only pods of the node's own may start before the node's policies are in force: config/components/boot-guard.
func TestBootGuardAdmitsPodsOfTheNodeOnly(t *testing.T) {
	c, err := client.New(admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	pod := func(namespace, name string, isOnHost bool, annotations map[string]string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
			Spec:       corev1.PodSpec{HostNetwork: isOnHost, Containers: []corev1.Container{{Name: "app", Image: "app"}}},
		}
	}
	remove := func(obj client.Object) {
		t.Cleanup(func() {
			if err := client.IgnoreNotFound(c.Delete(context.Background(), obj, client.GracePeriodSeconds(0))); err != nil {
				t.Error(err)
			}
		})
	}
	rejects := func(err error) bool {
		return (apierrors.IsInvalid(err) || apierrors.IsForbidden(err)) && strings.Contains(err.Error(), "only pods on the host network")
	}
	old := pod("default", "from-before", false, map[string]string{tolerating: "true"})
	if err := c.Create(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	remove(old)
	for file, obj := range map[string]client.Object{
		"policy.yaml": &admissionv1.ValidatingAdmissionPolicy{}, "policy_binding.yaml": &admissionv1.ValidatingAdmissionPolicyBinding{},
	} {
		data, err := os.ReadFile(filepath.Join(apitest.Root(), "config", "components", "boot-guard", file))
		if err != nil {
			t.Fatal(err)
		}
		if err := yaml.UnmarshalStrict(data, obj); err != nil {
			t.Fatal(err)
		}
		if err := c.Create(t.Context(), obj); err != nil {
			t.Fatal(err)
		}
		remove(obj)
	}
	if err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err := c.Create(ctx, pod("default", "probe", false, map[string]string{tolerating: "true"}), client.DryRunAll)
		if err != nil && !rejects(err) {
			return false, err
		}
		return err != nil, nil
	}); err != nil {
		t.Fatalf("wait for the policy: %v", err)
	}

	for i, test := range []struct {
		namespace   string
		isOnHost    bool
		annotations map[string]string
		rejects     bool
	}{
		{"kube-system", true, map[string]string{tolerating: "true"}, false},
		{shared, true, map[string]string{tolerating: "true"}, false},
		{"kube-system", false, map[string]string{tolerating: "true"}, true},
		{"default", true, map[string]string{tolerating: "true"}, true},
		{"default", false, map[string]string{tolerating + "/pod": "true"}, true},
		{"default", false, map[string]string{tolerating + "/container.app": "true"}, true},
		{"default", false, map[string]string{tolerating: "false"}, true},
		{"default", false, map[string]string{tolerating + "x": "true", "other": "true"}, false},
		{"default", true, nil, false},
	} {
		p := pod(test.namespace, fmt.Sprintf("boot-%d", i), test.isOnHost, test.annotations)
		if err := c.Create(t.Context(), p, client.DryRunAll); rejects(err) != test.rejects || !test.rejects && err != nil {
			t.Errorf("pod of %s, on the host network %t, with %v: %v", test.namespace, test.isOnHost, test.annotations, err)
		}
	}

	// Annotations that come later.
	later := pod("default", "later", false, nil)
	if err := c.Create(t.Context(), later); err != nil {
		t.Fatal(err)
	}
	remove(later)
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"true"}}}`, tolerating))
	if err := c.Patch(t.Context(), later.DeepCopy(), patch); !rejects(err) {
		t.Errorf("a change: %v", err)
	}
	if err := c.Status().Patch(t.Context(), later.DeepCopy(), patch); !rejects(err) {
		t.Errorf("a change along with status: %v", err)
	}
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: later.Name, Annotations: map[string]string{tolerating: "true"}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: "n1"},
	}
	if err := c.SubResource("binding").Create(t.Context(), later.DeepCopy(), binding); !rejects(err) {
		t.Errorf("a binding: %v", err)
	}
	binding.Annotations = nil
	if err := c.SubResource("binding").Create(t.Context(), later.DeepCopy(), binding); err != nil {
		t.Errorf("a binding without the annotation: %v", err)
	}

	// A pod that had the annotation before the policy can go on and end.
	failed := client.RawPatch("application/merge-patch+json", []byte(`{"status":{"phase":"Failed"}}`))
	if err := c.Status().Patch(t.Context(), old, failed); err != nil {
		t.Errorf("status of a pod from before: %v", err)
	}
}
