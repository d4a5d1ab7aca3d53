//go:build envtest

package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func TestUnresolvedPortsAreReported(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	c.pod("shop", "w1", web, "10.6.0.1")
	np := c.policy("shop", "db", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}, {port: metrics}]}]}`)
	expect := func(status metav1.ConditionStatus, reason string, rules int) {
		t.Helper()
		eventually(t, func() error {
			pe, err := c.endpointOf(np)
			if err != nil {
				return err
			}
			cond := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved)
			if cond == nil || cond.Status != status || cond.Reason != reason || len(pe.Spec.Egress) != rules {
				return fmt.Errorf("condition %+v, rules %+v", cond, pe.Spec.Egress)
			}
			return nil
		})
	}
	expect(metav1.ConditionFalse, v1alpha1.ReasonUnresolvedNamedPort, 1)
	c.expectPeers(np, "Egress", "10.6.0.1")
	c.expectEvent(np, v1alpha1.ReasonUnresolvedNamedPort, `spec.egress[0].ports: no pod among the peers has a TCP port "metrics"`)

	w2 := c.pod("shop", "w2", web, "10.6.0.2", corev1.ContainerPort{Name: "metrics", ContainerPort: 9100})
	expect(metav1.ConditionTrue, v1alpha1.ReasonResolved, 2)
	eventually(t, func() error {
		pe, err := c.endpointOf(np)
		if err != nil {
			return err
		}
		for _, r := range pe.Spec.Egress {
			if r.Ports[0].Port == 9100 {
				if got, err := c.addresses(c.ns("shop"), r.Peers[0].Group.Name); err != nil || got != "10.6.0.2" {
					return fmt.Errorf("pods with the port: %q, %v", got, err)
				}
				return nil
			}
		}
		return fmt.Errorf("no rule for port 9100: %+v", pe.Spec.Egress)
	})
	c.delete(w2)
	expect(metav1.ConditionFalse, v1alpha1.ReasonUnresolvedNamedPort, 1)
}

// expectEvent waits until a policy has a warning whose note begins with this text.
func (c *cluster) expectEvent(np *networkingv1.NetworkPolicy, reason, note string) {
	c.t.Helper()
	eventually(c.t, func() error {
		var list eventsv1.EventList
		if err := c.List(ctx, &list, client.InNamespace(np.Namespace)); err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Kind == "NetworkPolicy" && e.Regarding.UID == np.UID && e.Reason == reason && e.Type == corev1.EventTypeWarning {
				notes = append(notes, e.Note)
			}
		}
		if !slices.ContainsFunc(notes, func(n string) bool { return strings.HasPrefix(n, note) }) {
			return fmt.Errorf("events say %q, want %q among them", notes, note)
		}
		return nil
	})
}

// A pod appears with one of two named ports of the policy: the reason stays, the text changes.
func TestAProblemThatChangesWithoutAnEditIsReported(t *testing.T) {
	c := newCluster(t, "shop")
	metric := unresolvedGauge.WithLabelValues(v1alpha1.ReasonUnresolvedNamedPort)
	before := testutil.ToFloat64(metric) // of the controllers of other tests
	expectUnresolved := func(want float64) {
		t.Helper()
		eventually(t, func() error {
			if got := testutil.ToFloat64(metric) - before; got != want {
				return fmt.Errorf("the metric counts %v policies, want %v", got, want)
			}
			return nil
		})
	}
	startController(t, false)
	np := c.policy("shop", "db", `{podSelector: {}, policyTypes: [Egress], egress: [
		{to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: http}]}, {to: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: metrics}]}]}`)
	c.expectEvent(np, v1alpha1.ReasonUnresolvedNamedPort, `spec.egress[0].ports: no pod among the peers has a TCP port "http"; spec.egress[1]`)
	expectUnresolved(1)
	c.pod("shop", "w1", web, "10.7.0.1", corev1.ContainerPort{Name: "http", ContainerPort: 80})
	c.expectEvent(np, v1alpha1.ReasonUnresolvedNamedPort, `spec.egress[1].ports: no pod among the peers has a TCP port "metrics"`)
	expectUnresolved(1)
	c.pod("shop", "w2", web, "10.7.0.2", corev1.ContainerPort{Name: "metrics", ContainerPort: 81})
	expectUnresolved(0)
	np = c.policy("shop", "db", `{podSelector: {}, ingress: [{ports: [{port: none}]}]}`)
	expectUnresolved(1)
	c.delete(np)
	expectUnresolved(0)
}

// The recorder compares everything of two Events except their text.
func TestAProblemOfAnEditIsReported(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	for _, port := range []string{"metrics", "matrics"} {
		np := c.policy("shop", "db", `{podSelector: {}, ingress: [{ports: [{port: `+port+`}]}]}`)
		c.expectEvent(np, v1alpha1.ReasonUnresolvedNamedPort, `spec.ingress: no pod that the policy selects has a TCP port "`+port+`"`)
	}
}

// At the first start, specs come first: no status is written while more PolicyEndpoints are missing than there
// are workers.
func TestStatusesComeLast(t *testing.T) {
	const policies = 4 * workers
	c := newCluster(t, "shop")
	for i := range policies {
		c.policy("shop", fmt.Sprintf("p%d", i), fromWeb)
	}
	stop := c.record()
	startController(t, false)
	eventually(t, func() error {
		var list v1alpha1.PolicyEndpointList
		if err := c.List(ctx, &list, client.InNamespace(c.ns("shop"))); err != nil {
			return err
		}
		reported := 0
		for _, pe := range list.Items {
			if pe.Status.ObservedGeneration > 0 {
				reported++
			}
		}
		if reported != policies {
			return fmt.Errorf("%d of %d statuses", reported, policies)
		}
		return nil
	})
	there := map[string]bool{}
	for _, w := range stop() {
		if w.pe == nil || w.pe.Namespace != c.ns("shop") {
			continue
		}
		there[w.pe.Name] = true
		if w.pe.Status.ObservedGeneration > 0 {
			if len(there) < policies-workers {
				t.Errorf("the first status came when %d of %d PolicyEndpoints were there", len(there), policies)
			}
			return
		}
	}
}
