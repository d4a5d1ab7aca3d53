//go:build envtest

package controller

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

var ctx = context.Background()

const fromWeb = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}`

var web = map[string]string{"app": "web"}

func TestAPolicyBecomesAnEndpointAndSlices(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	c.pod("shop", "w1", web, "10.1.0.1")
	c.pod("shop", "w2", web, "10.1.0.2")
	c.pod("shop", "other", nil, "10.1.0.3")
	np := c.policy("shop", "db", fromWeb)
	c.expectPeers(np, "Ingress", "10.1.0.1 10.1.0.2")

	var pe *v1alpha1.PolicyEndpoint
	eventually(t, func() (err error) {
		if pe, err = c.endpointOf(np); err != nil {
			return err
		}
		cond := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved)
		if cond == nil || cond.Status != metav1.ConditionTrue || cond.ObservedGeneration != pe.Generation || pe.Status.ObservedGeneration != pe.Generation ||
			pe.Status.PolicyGeneration != np.Generation || pe.Status.Peers != 1 {
			return fmt.Errorf("status %+v", pe.Status)
		}
		return nil
	})
	want := v1alpha1.PolicyEndpointSpec{
		PolicyRef:   v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "db", UID: np.UID, Generation: 1},
		Enforcement: v1alpha1.EnforcementEnforce,
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
		PolicyTypes: []v1alpha1.PolicyType{"Ingress"},
		Ingress: []v1alpha1.Rule{{
			Action: v1alpha1.ActionAllow, RuleIndexes: []int32{0}, Peers: []v1alpha1.Peer{{Group: pe.Spec.Ingress[0].Peers[0].Group}},
			Ports: []v1alpha1.Port{{Protocol: "TCP", Port: 5432}},
		}},
	}
	if diff := cmp.Diff(want, pe.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	owner := []metav1.OwnerReference{{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy", Name: "db", UID: np.UID, Controller: new(true), BlockOwnerDeletion: new(false)}}
	if diff := cmp.Diff(owner, pe.OwnerReferences); diff != "" {
		t.Errorf("owner (-want +got):\n%s", diff)
	}
	labels := map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController, v1alpha1.LabelPolicyKind: "NetworkPolicy", v1alpha1.LabelPolicyUID: string(np.UID)}
	if diff := cmp.Diff(labels, pe.Labels); diff != "" {
		t.Errorf("labels (-want +got):\n%s", diff)
	}
	if len(pe.Finalizers) != 0 {
		t.Errorf("finalizers %v", pe.Finalizers)
	}

	np = c.policy("shop", "db", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]}`)
	eventually(t, func() error {
		pe, err := c.endpointOf(np)
		if err == nil && (len(pe.Spec.Ingress) > 0 || len(pe.Spec.Egress) != 1 || pe.Spec.PolicyRef.Generation != 2) {
			err = fmt.Errorf("spec %+v", pe.Spec)
		}
		return err
	})
	c.expectGone(&v1alpha1.PolicyEndpointSliceList{}, c.ns("shop"))

	c.delete(np)
	c.expectGone(&v1alpha1.PolicyEndpointList{}, c.ns("shop"))
}

// expectGone waits until a namespace has none of a kind.
func (c *cluster) expectGone(list client.ObjectList, namespace string) {
	c.t.Helper()
	eventually(c.t, func() error {
		if err := c.List(ctx, list, client.InNamespace(namespace)); err != nil {
			return err
		}
		if n := meta.LenList(list); n > 0 {
			return fmt.Errorf("%d of %T are left", n, list)
		}
		return nil
	})
}

func TestSlicesFollowPodsLabelsAndNamespaces(t *testing.T) {
	c := newCluster(t, "shop", "tools")
	startController(t, false)
	np := c.policy("shop", "db", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {test: `+c.prefix+`x}}, podSelector: {matchLabels: {app: web}}}]}]}`)
	c.expectPeers(np, "Ingress", "")

	w1 := c.pod("shop", "w1", web, "10.2.0.1")
	w2 := c.pod("tools", "w2", web, "10.2.0.2")
	w3 := c.pod("tools", "w3", nil, "fd00::3")
	c.expectPeers(np, "Ingress", "10.2.0.1 10.2.0.2")
	edit(c, w3, func(p *corev1.Pod) { p.Labels = web })
	c.expectPeers(np, "Ingress", "10.2.0.1 10.2.0.2 fd00::3")
	edit(c, w2, func(p *corev1.Pod) { p.Labels = nil })
	c.expectPeers(np, "Ingress", "10.2.0.1 fd00::3")

	tools := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.ns("tools")}}
	edit(c, tools, func(n *corev1.Namespace) { delete(n.Labels, "test") })
	c.expectPeers(np, "Ingress", "10.2.0.1")
	edit(c, tools, func(n *corev1.Namespace) { n.Labels["test"] = c.prefix + "x" })
	c.expectPeers(np, "Ingress", "10.2.0.1 fd00::3")

	w1.Status.Phase = corev1.PodSucceeded
	if err := c.Status().Update(ctx, w1); err != nil {
		t.Fatal(err)
	}
	c.expectPeers(np, "Ingress", "fd00::3")
	for i := range 3 * maxAddresses {
		c.pod("shop", fmt.Sprintf("many%d", i), web, fmt.Sprintf("10.2.1.%d", i+10))
	}
	c.expectPeers(np, "Ingress", "10.2.1.10 10.2.1.11 10.2.1.12 10.2.1.13 10.2.1.14 10.2.1.15 10.2.1.16 10.2.1.17 10.2.1.18 10.2.1.19 10.2.1.20 10.2.1.21 fd00::3")
	for i := range 3 * maxAddresses {
		c.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: fmt.Sprintf("many%d", i)}})
	}
	c.expectPeers(np, "Ingress", "fd00::3")

	pe, err := c.endpointOf(np)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.listOf(shared, pe.Spec.Ingress[0].Peers[0].Group.Name).ManagedFields); n > 0 {
		t.Errorf("a slice that was updated has %d managedFields, which every watch would receive", n)
	}
}

func TestEditsByOtherClientsAreReverted(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	c.pod("shop", "w1", web, "10.3.0.1")
	np := c.policy("shop", "db", fromWeb)
	c.expectPeers(np, "Ingress", "10.3.0.1")
	foreign := &v1alpha1.PolicyEndpoint{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "by-hand"},
		Spec: v1alpha1.PolicyEndpointSpec{
			PolicyRef: v1alpha1.PolicyReference{Kind: "Manual", Name: "by-hand"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"},
			Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: "by-hand"}}}}},
		},
	}
	foreignSlice := &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "by-hand"},
		Spec:       oneGroup("by-hand", "by-hand", "10.9.0.0/16"),
	}
	c.create(foreign)
	c.create(foreignSlice)

	pe, err := c.endpointOf(np)
	if err != nil {
		t.Fatal(err)
	}
	slice := c.listOf(pe.Namespace, pe.Spec.Ingress[0].Peers[0].Group.Name)
	wantPE, wantSlice := pe.DeepCopy(), slice.DeepCopy()
	check := func(what string) {
		t.Helper()
		eventually(t, func() error {
			gotPE, gotSlice := pe.DeepCopy(), slice.DeepCopy()
			if err := c.Get(ctx, client.ObjectKeyFromObject(pe), gotPE); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if err := c.Get(ctx, client.ObjectKeyFromObject(slice), gotSlice); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			diff := cmp.Diff(wantPE.Spec, gotPE.Spec) + cmp.Diff(wantPE.OwnerReferences, gotPE.OwnerReferences) + cmp.Diff(wantSlice.Spec, gotSlice.Spec)
			for k, v := range wantPE.Labels {
				diff += cmp.Diff(v, gotPE.Labels[k])
			}
			for k, v := range wantSlice.Labels {
				diff += cmp.Diff(v, gotSlice.Labels[k])
			}
			cond := meta.FindStatusCondition(gotPE.Status.Conditions, v1alpha1.ConditionResolved)
			if diff == "" && (cond == nil || cond.ObservedGeneration != gotPE.Generation) {
				diff = "status is not about this generation"
			}
			if diff != "" {
				return fmt.Errorf("%s: %s", what, diff)
			}
			return nil
		})
	}
	check("at first")
	edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress = nil })
	check("rules taken away")
	edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.OwnerReferences = nil })
	check("owner taken away")
	edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.Labels = nil })
	check("labels taken off the PolicyEndpoint")
	edit(c, slice, func(s *v1alpha1.PolicyEndpointSlice) {
		setAddresses(&s.Spec, "0.0.0.0/0")
	})
	check("an address smuggled in")
	edit(c, slice, func(s *v1alpha1.PolicyEndpointSlice) { s.Labels = map[string]string{"mine": "now"} })
	check("labels taken off the slice")
	failed := reconcileErrors(t)
	for i := range 50 { // another client writes as fast as the controller
		edit(c, slice, func(s *v1alpha1.PolicyEndpointSlice) {
			setAddresses(&s.Spec, v1alpha1.CIDR(fmt.Sprintf("10.3.9.%d/32", i)))
		})
		edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress = nil })
	}
	check("another client edits both all the time")
	if n := reconcileErrors(t) - failed; n > 0 {
		t.Errorf("%v reconciliations failed over conflicts", n)
	}
	c.delete(slice.DeepCopy())
	check("the slice deleted")
	c.delete(pe.DeepCopy())
	check("the PolicyEndpoint deleted")
	if err := c.Get(ctx, client.ObjectKeyFromObject(pe), pe); err != nil {
		t.Fatal(err)
	}
	pe.Status = v1alpha1.EndpointStatus{}
	if err := c.Status().Update(ctx, pe); err != nil {
		t.Fatal(err)
	}
	check("the status wiped")

	stray := &v1alpha1.PolicyEndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "stray", Labels: wantSlice.Labels},
		Spec:       oneGroup("stray", slice.Spec.Groups[0].Name, "0.0.0.0/0"),
	}
	c.create(stray)
	eventually(t, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(stray), stray); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Errorf("a slice of the controller's that belongs to no group exists: %v", err)
		}
		return nil
	})

	for _, obj := range []client.Object{foreign, foreignSlice} {
		was := obj.GetResourceVersion()
		if err := c.Get(ctx, client.ObjectKeyFromObject(obj), obj); err != nil || obj.GetResourceVersion() != was {
			t.Errorf("another client's %T was changed: %v", obj, err)
		}
	}
}

func TestARecreatedPolicyHasAnotherPolicyEndpoint(t *testing.T) {
	c := newCluster(t, "shop", "tools")
	startController(t, false)
	c.pod("shop", "w1", web, "10.5.0.1")
	first := c.policy("shop", "db", fromWeb)
	twin := c.policy("tools", "db", fromWeb)
	c.expectPeers(first, "Ingress", "10.5.0.1")
	c.expectPeers(twin, "Ingress", "")
	old, err := c.endpointOf(first)
	if err != nil {
		t.Fatal(err)
	}
	c.delete(first)
	second := c.policy("shop", "db", `{podSelector: {}, ingress: [{}]}`)
	eventually(t, func() error {
		pe, err := c.endpointOf(second)
		if err != nil {
			return err
		}
		if pe.Name == old.Name || len(pe.Spec.Ingress) != 1 || len(pe.Spec.Ingress[0].Peers) != 0 {
			return fmt.Errorf("%s: %+v", pe.Name, pe.Spec)
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(old), old); client.IgnoreNotFound(err) != nil || err == nil {
			return fmt.Errorf("the first one's PolicyEndpoint is there: %v", err)
		}
		return nil
	})
	c.expectPeers(twin, "Ingress", "")
}

func TestATerminatingNamespaceIsNoError(t *testing.T) {
	c := newCluster(t, "goes", "stays")
	startController(t, false)
	np := c.policy("goes", "db", fromWeb)
	c.expectPeers(np, "Ingress", "")
	before := reconcileErrors(t)
	// no namespace controller runs here: the namespace stays Terminating, and nothing can be created in it
	c.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: c.ns("goes")}})
	for _, obj := range []client.Object{&v1alpha1.PolicyEndpoint{}, &v1alpha1.PolicyEndpointSlice{}} {
		if err := c.DeleteAllOf(ctx, obj, client.InNamespace(c.ns("goes"))); err != nil {
			t.Fatal(err)
		}
	}
	// a worker took every request that was queued before the second of these
	c.expectPeers(c.policy("stays", "marker1", fromWeb), "Ingress", "")
	c.expectPeers(c.policy("stays", "marker2", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {marker: two}}}]}]}`), "Ingress", "")
	c.expectGone(&v1alpha1.PolicyEndpointSliceList{}, c.ns("goes"))
	if after := reconcileErrors(t); after != before {
		t.Errorf("%v reconciliations failed", after-before)
	}
}

// reconcileErrors is the number of reconciliations that have failed so far.
func reconcileErrors(t *testing.T) (n float64) {
	t.Helper()
	families, err := metrics.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "controller_runtime_reconcile_errors_total" {
			for _, m := range f.GetMetric() {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}
