//go:build envtest

package controller

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/go-logr/logr/funcr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// The API server's error about a quota does not contain the namespace.
func TestAnErrorNamesTheObject(t *testing.T) {
	c := newCluster(t, "shop")
	quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "none"}}
	quota.Spec.Hard = corev1.ResourceList{"count/policyendpoints.networking.kidoban.dev": resource.MustParse("0")}
	c.create(quota)
	quota.Status = corev1.ResourceQuotaStatus{Hard: quota.Spec.Hard, Used: quota.Spec.Hard} // no quota controller runs here
	if err := c.Status().Update(ctx, quota); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var lines []string
	startController(t, false, func(o *ctrl.Options) {
		o.Logger = funcr.New(func(_, args string) {
			mu.Lock()
			defer mu.Unlock()
			lines = append(lines, args)
		}, funcr.Options{})
	})
	np := c.policy("shop", "db", fromWeb)
	eventually(t, func() error {
		mu.Lock()
		defer mu.Unlock()
		refused := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(l, "quota") })
		if refused < 0 {
			return fmt.Errorf("no error of the quota among %q", lines)
		}
		if l := lines[refused]; !strings.Contains(l, np.Namespace) || !strings.Contains(l, "db-") {
			t.Fatalf("it does not name the rejected object: %s", l)
		}
		return nil
	})
	c.expectEvent(np, v1alpha1.ReasonRejected, "the API server rejects the policy's objects: ")
	c.delete(quota)
	c.expectPeers(np, "Ingress", "")
}

// The API server may accept an invalid object later: when an admission policy is deleted, or a schema older than
// the controller is replaced.
func TestAnInvalidObjectIsTriedAgain(t *testing.T) {
	c := newCluster(t, "shop")
	meta := metav1.ObjectMeta{Name: c.prefix + "none"}
	deny := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create},
			Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"policyendpoints"}},
		}}}},
		Validations: []admissionv1.Validation{{Expression: "object.metadata.namespace != '" + c.ns("shop") + "'", Message: "none here"}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	c.create(deny)
	c.create(binding)
	t.Cleanup(func() {
		for _, obj := range []client.Object{binding, deny} {
			if err := c.Delete(ctx, obj); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, func() error { // the API server needs a moment to apply it
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "probe"}, Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "Test", Name: "probe"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"}}}
		if err := c.Create(ctx, pe, client.DryRunAll); !apierrors.IsInvalid(err) {
			return fmt.Errorf("not rejected yet: %v", err)
		}
		return nil
	})
	startController(t, false)
	np := c.policy("shop", "db", fromWeb)
	c.expectEvent(np, v1alpha1.ReasonRejected, "the API server rejects the policy's objects: ")
	c.delete(binding)
	c.expectPeers(np, "Ingress", "")
}
