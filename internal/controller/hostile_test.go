//go:build envtest

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// expectIsolated waits until a PolicyEndpoint without rules isolates a policy's pods. reason is that of the condition; empty: any.
func (c *cluster) expectIsolated(np *networkingv1.NetworkPolicy, reason string) {
	c.t.Helper()
	eventually(c.t, func() error {
		pe, err := c.endpointOf(np)
		if err != nil {
			return err
		}
		if len(pe.Spec.PolicyTypes) != len(np.Spec.PolicyTypes) || len(pe.Spec.Ingress)+len(pe.Spec.Egress) != 0 {
			return fmt.Errorf("spec %+v", pe.Spec)
		}
		if cond := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved); reason != "" && (cond == nil || cond.Reason != reason || cond.Message == "") {
			return fmt.Errorf("condition %+v", cond)
		}
		return nil
	})
}

// A policy that was too large from the start left its pods open.
func TestHostileTooLargePolicyIsolates(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	var rules strings.Builder
	for i := range v1alpha1.MaxRules + 1 {
		fmt.Fprintf(&rules, "{from: [{ipBlock: {cidr: 10.%d.%d.0/24}}], ports: [{port: %d}]},", i/250, i%250, i+1)
	}
	np := c.policy("shop", "db", "{podSelector: {}, ingress: ["+rules.String()+"]}")
	c.expectIsolated(np, v1alpha1.ReasonTooLarge)
	c.expectEvent(np, v1alpha1.ReasonTooLarge, "spec.ingress comes to ")
}

// A policy whose object an admission policy rejects left its pods open.
func TestHostileRejectedPolicyIsolates(t *testing.T) {
	c := newCluster(t, "shop")
	name := metav1.ObjectMeta{Name: c.prefix + "no-rules"}
	deny := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: name, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"policyendpoints"}},
		}}}},
		Validations: []admissionv1.Validation{{
			Expression: "object.metadata.namespace != '" + c.ns("shop") + "' || !has(object.spec.ingress) || size(object.spec.ingress) == 0", Message: "no rules here",
		}},
	}}
	binding := &admissionv1.ValidatingAdmissionPolicyBinding{ObjectMeta: name, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
		PolicyName: name.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
	}}
	c.create(deny)
	c.create(binding)
	t.Cleanup(func() {
		for _, obj := range []client.Object{binding, deny} {
			if err := client.IgnoreNotFound(c.Delete(ctx, obj)); err != nil {
				t.Error(err)
			}
		}
	})
	eventually(t, func() error { // the API server needs a moment to apply it
		pe := &v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "probe"}, Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "Test", Name: "probe"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"},
			Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{CIDR: "10.0.0.0/8"}}}},
		}}
		if err := c.Create(ctx, pe, client.DryRunAll); !apierrors.IsInvalid(err) {
			return errors.Join(errors.New("not rejected yet"), err)
		}
		return nil
	})
	startController(t, false)
	np := c.policy("shop", "db", fromWeb)
	c.expectIsolated(np, "")
	c.expectEvent(np, v1alpha1.ReasonRejected, "the API server rejects the policy's objects: ")
	c.delete(binding)
	c.expectPeers(np, "Ingress", "")
}
