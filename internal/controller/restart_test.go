//go:build envtest

package controller

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

func TestARestartWritesNothing(t *testing.T) {
	c := newCluster(t, "shop", "tools")
	stop := startController(t, false)
	var last *networkingv1.NetworkPolicy
	for i := range 5 {
		last = c.policy("shop", fmt.Sprintf("p%d", i), fmt.Sprintf(`{podSelector: {}, policyTypes: [Ingress, Egress],
			ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: %d}, {port: http}]}],
			egress: [{to: [{namespaceSelector: {matchLabels: {test: %sx}}}], ports: [{port: http}]}, {ports: [{port: nosuch}]}]}`, i+1, c.prefix))
	}
	http := corev1.ContainerPort{Name: "http", ContainerPort: 80}
	for i := range 3*maxAddresses + 1 {
		c.pod("shop", fmt.Sprintf("w%d", i), web, fmt.Sprintf("10.4.0.%d", i+10), http)
	}
	all := "10.4.0.10 10.4.0.11 10.4.0.12 10.4.0.13 10.4.0.14 10.4.0.15 10.4.0.16 10.4.0.17 10.4.0.18 10.4.0.19 10.4.0.20 10.4.0.21 10.4.0.22"
	c.expectPeers(last, "Egress", all)
	for i := range 2 * maxAddresses { // leaves holes
		c.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: fmt.Sprintf("w%d", i+3)}})
	}
	c.expectPeers(last, "Egress", "10.4.0.10 10.4.0.11 10.4.0.12 10.4.0.21 10.4.0.22")
	c.expectPeers(last, "Ingress", "10.4.0.10 10.4.0.11 10.4.0.12 10.4.0.21 10.4.0.22")
	stop()
	before := c.versions()
	stop = startController(t, false)
	// a worker took every request that was queued before the second of these; it is done when stop returns
	c.expectPeers(c.policy("tools", "marker1", fromWeb), "Ingress", "")
	c.expectPeers(c.policy("tools", "marker2", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {marker: two}}}]}]}`), "Ingress", "")
	stop()
	after := c.versions()
	for key := range after {
		if _, ok := before[key]; !ok {
			delete(after, key) // the markers'
		}
	}
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the restart wrote (-before +after):\n%s", diff)
	}
}

// versions returns the resource versions of all that the controller wrote.
func (c *cluster) versions() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	var pes v1alpha1.PolicyEndpointList
	var slices v1alpha1.PolicyEndpointSliceList
	for _, list := range []client.ObjectList{&pes, &slices} {
		if err := c.List(ctx, list); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, pe := range pes.Items {
		out["pe "+pe.Namespace+"/"+pe.Name] = pe.ResourceVersion
	}
	for _, s := range slices.Items {
		out["pes "+s.Namespace+"/"+s.Name] = s.ResourceVersion
	}
	return out
}

// No part of a policy's newest version can be enforced: the groups of the version in force follow their pods,
// also after a restart.
func TestTheVersionInForceSurvivesARestart(t *testing.T) {
	c := newCluster(t, "shop")
	stop := startController(t, false)
	c.pod("shop", "w1", web, "10.12.0.1")
	np := c.policy("shop", "db", fromWeb)
	c.expectPeers(np, "Ingress", "10.12.0.1")
	var rules strings.Builder
	for i := range v1alpha1.MaxRules + 1 {
		fmt.Fprintf(&rules, "{from: [{ipBlock: {cidr: 10.%d.%d.0/24}}], ports: [{port: %d}]},", i/250, i%250, i+1)
	}
	np = c.policy("shop", "db", "{podSelector: {matchLabels: {app: db}}, ingress: ["+rules.String()+"]}")
	expectTooLarge := func() {
		t.Helper()
		eventually(t, func() error {
			pe, err := c.endpointOf(np)
			if err != nil {
				return err
			}
			if cond := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved); cond == nil || cond.Reason != v1alpha1.ReasonTooLarge {
				return fmt.Errorf("condition %+v", cond)
			}
			return nil
		})
	}
	expectTooLarge()
	stop()
	c.delete(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "w1"}})
	c.pod("shop", "w2", web, "10.12.0.2")
	startController(t, false)
	c.expectPeers(np, "Ingress", "10.12.0.2")
	expectTooLarge()
	c.pod("shop", "w3", web, "10.12.0.3")
	c.expectPeers(np, "Ingress", "10.12.0.2 10.12.0.3")
	c.expectPeers(c.policy("shop", "db", fromWeb), "Ingress", "10.12.0.2 10.12.0.3")
}

func TestASliceOfAnotherGroupUnderAUsedNameIsTakenOver(t *testing.T) {
	c := newCluster(t, "shop")
	stop := startController(t, false)
	c.pod("shop", "w1", web, "10.13.0.1")
	np := c.policy("shop", "db", fromWeb)
	c.expectPeers(np, "Ingress", "10.13.0.1")
	stop()
	pe, err := c.endpointOf(np)
	if err != nil {
		t.Fatal(err)
	}
	for _, labels := range []map[string]string{nil, {v1alpha1.LabelManagedBy: v1alpha1.ManagedByController}} {
		slice := c.listOf(pe.Namespace, pe.Spec.Ingress[0].Peers[0].Group.Name)
		c.delete(slice.DeepCopy())
		slice.ObjectMeta = metav1.ObjectMeta{Namespace: slice.Namespace, Name: slice.Name, Labels: labels}
		slice.Spec = oneGroup(slice.Name, "another", "0.0.0.0/0")
		c.create(slice)
		stop := startController(t, false)
		c.expectPeers(np, "Ingress", "10.13.0.1")
		stop()
	}
}

func TestUnwantedObjectsAreDeletedAtStart(t *testing.T) {
	c := newCluster(t, "shop")
	ours := map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedByController}
	spec := func(name string) v1alpha1.PolicyEndpointSliceSpec {
		return oneGroup(name, "g-0123456789abcdef", "10.7.0.1/32")
	}
	for _, name := range []string{"g-0123456789abcdef-0", "ips-1", "ips-01", "odd"} {
		c.create(&v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: name, Labels: ours}, Spec: spec(name)})
	}
	c.create(&v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "left", Labels: ours}, Spec: v1alpha1.PolicyEndpointSpec{
		PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "gone", UID: "gone"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"},
		Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionAllow, Peers: []v1alpha1.Peer{{Group: &v1alpha1.GroupReference{Name: "g-0123456789abcdef"}}}}},
	}})
	c.create(&v1alpha1.PolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "denied", Labels: ours}, Spec: v1alpha1.PolicyEndpointSpec{
		PolicyRef: v1alpha1.PolicyReference{Kind: "NetworkPolicy", Name: "gone", UID: "gone"}, PolicyTypes: []v1alpha1.PolicyType{"Ingress"},
	}})
	c.create(&v1alpha1.PolicyEndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: c.ns("shop"), Name: "theirs"}, Spec: spec("theirs")})
	startController(t, false)
	c.expectGone(&v1alpha1.PolicyEndpointList{}, c.ns("shop"))
	eventually(t, func() error {
		var list v1alpha1.PolicyEndpointSliceList
		if err := c.List(ctx, &list, client.InNamespace(c.ns("shop"))); err != nil {
			return err
		}
		if len(list.Items) != 1 || list.Items[0].Name != "theirs" {
			return fmt.Errorf("%d slices are left", len(list.Items))
		}
		return nil
	})
}
