//go:build envtest

package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// label sets the label of a policy that decides about its enforcement; empty removes it.
func (c *cluster) label(np *networkingv1.NetworkPolicy, value string) {
	c.t.Helper()
	edit(c, np, func(np *networkingv1.NetworkPolicy) {
		np.Labels = map[string]string{v1alpha1.LabelEnforcement: value}
		if value == "" {
			np.Labels = nil
		}
	})
}

// expectEnforcement waits for the enforcement of a policy's PolicyEndpoint, and for the conditions that belong to it.
func (c *cluster) expectEnforcement(np *networkingv1.NetworkPolicy, want v1alpha1.Enforcement, resolved metav1.ConditionStatus) *metav1.Condition {
	c.t.Helper()
	var audited *metav1.Condition
	eventually(c.t, func() error {
		pe, err := c.endpointOf(np)
		if err != nil {
			return err
		}
		audited = meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionAudited)
		isAudited := want == v1alpha1.EnforcementAudit
		if pe.Spec.Enforcement != want || (audited != nil) != isAudited || isAudited && audited.ObservedGeneration != pe.Generation ||
			!meta.IsStatusConditionPresentAndEqual(pe.Status.Conditions, v1alpha1.ConditionResolved, resolved) {
			return fmt.Errorf("%s with the conditions %+v, want %s", pe.Spec.Enforcement, pe.Status.Conditions, want)
		}
		return nil
	})
	return audited
}

func TestALabelPutsAPolicyUnderAudit(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	np := c.policy("shop", "p", "{podSelector: {}}")
	c.expectEnforcement(np, v1alpha1.EnforcementEnforce, metav1.ConditionTrue)
	begin := time.Now().Truncate(time.Second)
	c.label(np, "audit")
	condition := c.expectEnforcement(np, v1alpha1.EnforcementAudit, metav1.ConditionTrue)
	if since := condition.LastTransitionTime.Time; since.Before(begin) || since.After(time.Now()) {
		t.Errorf("audited since %v, want %v", since, begin)
	}
	eventually(t, func() error {
		if n := testutil.CollectAndCount(audited); n != 1 {
			return fmt.Errorf("%d series of audited policies", n)
		}
		return nil
	})
	c.label(np, "Audit")
	c.expectEnforcement(np, v1alpha1.EnforcementEnforce, metav1.ConditionFalse)
	c.expectEvent(np, v1alpha1.ReasonInvalidEnforcement, `metadata.labels[kidoban.dev/enforcement]: "Audit" is neither`)
	c.label(np, "")
	c.expectEnforcement(np, v1alpha1.EnforcementEnforce, metav1.ConditionTrue)
	eventually(t, func() error {
		if n := testutil.CollectAndCount(audited); n != 0 {
			return fmt.Errorf("%d series of audited policies", n)
		}
		return nil
	})
}
