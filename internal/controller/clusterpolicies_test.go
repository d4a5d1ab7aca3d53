//go:build envtest

package controller

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/controller-runtime/pkg/client"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/apitest"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
)

// installClusterKind installs or changes upstream's CRD, and waits until the API server has it.
func (c *cluster) installClusterKind(component string) *unstructured.Unstructured {
	c.t.Helper()
	data, err := os.ReadFile(filepath.Join(apitest.Root(), "config", "components", component, "policy.networking.k8s.io_clusternetworkpolicies.yaml"))
	if err != nil {
		c.t.Fatal(err)
	}
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &crd.Object); err != nil {
		c.t.Fatal(err)
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(crd.DeepCopy()), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		c.t.Fatal(err)
	}
	eventually(c.t, func() error { return c.List(ctx, &cnp.ClusterNetworkPolicyList{}) })
	return crd
}

// clusterPolicy creates or replaces a ClusterNetworkPolicy.
func (c *cluster) clusterPolicy(name, spec string) *cnp.ClusterNetworkPolicy {
	c.t.Helper()
	np := &cnp.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	err := client.IgnoreNotFound(c.Get(ctx, client.ObjectKeyFromObject(np), np))
	np.Spec = cnp.ClusterNetworkPolicySpec{}
	if err := errors.Join(err, yaml.UnmarshalStrict([]byte(strings.ReplaceAll(spec, "TEST", c.prefix+"x")), &np.Spec)); err != nil {
		c.t.Fatal(err)
	}
	if np.UID == "" {
		err = c.Create(ctx, np)
	} else {
		err = c.Update(ctx, np)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return np
}

// clusterEndpointOf returns the ClusterPolicyEndpoint of a policy's current version.
func (c *cluster) clusterEndpointOf(np *cnp.ClusterNetworkPolicy) (*v1alpha1.ClusterPolicyEndpoint, error) {
	var list v1alpha1.ClusterPolicyEndpointList
	if err := c.List(ctx, &list); err != nil {
		return nil, err
	}
	for i := range list.Items {
		if cpe := &list.Items[i]; cpe.Spec.PolicyRef.UID == np.UID && cpe.Spec.PolicyRef.Generation == np.Generation {
			return cpe, nil
		}
	}
	return nil, fmt.Errorf("no ClusterPolicyEndpoint of %s generation %d", np.Name, np.Generation)
}

// expectClusterPeers waits until a policy's rules of a direction have these addresses.
func (c *cluster) expectClusterPeers(np *cnp.ClusterNetworkPolicy, d policy.Direction, want string) {
	c.t.Helper()
	eventually(c.t, func() error {
		cpe, err := c.clusterEndpointOf(np)
		if err != nil {
			return err
		}
		rules := cpe.Spec.Ingress
		if d == policy.Egress {
			rules = cpe.Spec.Egress
		}
		got, err := c.addressesOf(rules)
		if err == nil && got != want {
			err = fmt.Errorf("%s of %s has peers %q, want %q", d, np.Name, got, want)
		}
		return err
	})
}

func (c *cluster) expectNoClusterEndpoints() {
	c.t.Helper()
	eventually(c.t, func() error {
		var list v1alpha1.ClusterPolicyEndpointList
		if err := c.List(ctx, &list); err != nil || len(list.Items) == 0 {
			return err
		}
		return fmt.Errorf("%d ClusterPolicyEndpoints are left", len(list.Items))
	})
}

func (c *cluster) expectPolicyCondition(np *cnp.ClusterNetworkPolicy, status metav1.ConditionStatus, message string) {
	c.t.Helper()
	eventually(c.t, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(np), np); err != nil {
			return err
		}
		cond := meta.FindStatusCondition(np.Status.Conditions, plan.ConditionOfPolicy)
		if cond == nil || cond.Status != status || cond.ObservedGeneration != np.Generation || !strings.Contains(cond.Message, message) {
			return fmt.Errorf("conditions %+v at generation %d", np.Status.Conditions, np.Generation)
		}
		return nil
	})
}

func TestClusterPoliciesComeAndGoWithTheirKind(t *testing.T) {
	c := newCluster(t, "shop", "tools")
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.prefix + "node", Labels: map[string]string{"test": c.prefix + "x"}}}
	c.create(node)
	t.Cleanup(func() { c.delete(node) })
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.7"}, {Type: corev1.NodeHostName, Address: "node"}}
	if err := c.Status().Update(ctx, node); err != nil {
		t.Fatal(err)
	}
	startController(t, false)
	c.pod("shop", "w1", web, "10.9.0.1")
	c.expectPeers(c.policy("shop", "db", fromWeb), "Ingress", "10.9.0.1") // the controller runs without the kind

	crd := c.installClusterKind("cluster-network-policy-experimental")
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
		c.expectNoClusterEndpoints()
	})
	const spec = `
tier: Admin
priority: 7
subject: {namespaces: {matchLabels: {test: TEST}}}
ingress:
- {name: web, action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {test: TEST}}, podSelector: {matchLabels: {app: web}}}}]}
egress:
- {action: Accept, to: [{nodes: {matchLabels: {test: TEST}}}, {networks: [10.0.0.0/8]}]}`
	np := c.clusterPolicy("a", spec)
	c.expectClusterPeers(np, policy.Ingress, "10.9.0.1")
	c.expectClusterPeers(np, policy.Egress, "10.0.0.0/8 192.0.2.7")
	c.pod("tools", "w2", web, "10.9.0.2")
	c.expectClusterPeers(np, policy.Ingress, "10.9.0.1 10.9.0.2")
	c.expectPolicyCondition(np, metav1.ConditionTrue, "")
	if n := len(np.ManagedFields); n > 2 {
		t.Errorf("%d managedFields", n)
	}
	edit(c, np, func(np *cnp.ClusterNetworkPolicy) {
		np.Labels = map[string]string{v1alpha1.LabelEnforcement: v1alpha1.LabelledAudit}
	})
	c.expectPolicyCondition(np, metav1.ConditionTrue, "audited and denies nothing")
	if cpe, err := c.clusterEndpointOf(np); err != nil || cpe.Spec.Enforcement != v1alpha1.EnforcementAudit {
		t.Errorf("%+v, %v", cpe, err)
	}
	edit(c, np, func(np *cnp.ClusterNetworkPolicy) { np.Labels = nil })
	eventually(t, func() error {
		cpe, err := c.clusterEndpointOf(np)
		if err := errors.Join(err, c.Get(ctx, client.ObjectKeyFromObject(np), np)); err != nil {
			return err
		}
		condition := meta.FindStatusCondition(np.Status.Conditions, plan.ConditionOfPolicy)
		if cpe.Spec.Enforcement != v1alpha1.EnforcementEnforce || condition == nil || strings.Contains(condition.Message, "audited") {
			return fmt.Errorf("it is still %s; condition %+v", cpe.Spec.Enforcement, condition)
		}
		return nil
	})
	node.Status.Addresses[0].Address = "192.0.2.8"
	if err := c.Status().Update(ctx, node); err != nil {
		t.Fatal(err)
	}
	c.expectClusterPeers(np, policy.Egress, "10.0.0.0/8 192.0.2.8")

	// Another implementation's condition stays.
	np.Status.Conditions = append(np.Status.Conditions, metav1.Condition{Type: "example.com/Ready", Status: "True", Reason: "Ready", LastTransitionTime: metav1.Now()})
	if err := c.Status().Update(ctx, np); err != nil {
		t.Fatal(err)
	}
	np = c.clusterPolicy("a", strings.Replace(spec, "egress:", "egress:\n- {action: Deny, to: [{namespaces: {matchLabels: {test: TEST}}}], protocols: [{destinationNamedPort: nosuch}]}", 1))
	c.expectPolicyCondition(np, metav1.ConditionFalse, "no pod among the peers has a port")
	if meta.FindStatusCondition(np.Status.Conditions, "example.com/Ready") == nil {
		t.Errorf("conditions %+v", np.Status.Conditions)
	}
	c.delete(np)
	c.expectNoClusterEndpoints()

	// The experimental channel has fields that the standard one lacks: objects lose them when the CRD is replaced.
	named := strings.Replace(spec, "{networks: [10.0.0.0/8]}", "{domainNames: [example.com]}", 1)
	np = c.clusterPolicy("b", named)
	c.expectPolicyCondition(np, metav1.ConditionFalse, "no DNS resolver of the cluster was found")
	c.expectClusterPeers(np, policy.Egress, "192.0.2.8 example.com")
	c.installClusterKind("cluster-network-policy")
	c.expectPolicyCondition(np, metav1.ConditionFalse, "a kind of peer that this version does not know")
	c.expectClusterPeers(np, policy.Egress, "")

	c.delete(crd)
	c.expectNoClusterEndpoints()
	eventually(t, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(crd), crd); !apierrors.IsNotFound(err) {
			return errors.Join(err, errors.New("the CRD is still there"))
		}
		return nil
	})
	c.installClusterKind("cluster-network-policy")
	np = c.clusterPolicy("c", strings.Replace(spec, "{nodes: {matchLabels: {test: TEST}}}, ", "", 1))
	c.expectClusterPeers(np, policy.Ingress, "10.9.0.1 10.9.0.2")
}

// An API server that stops serving a version still has the policies. They stay in force, and their status is written.
func TestClusterPoliciesStayWhenTheirVersionIsNotServed(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	crd := c.installClusterKind("cluster-network-policy")
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
		c.expectNoClusterEndpoints()
	})
	c.pod("shop", "w1", web, "10.9.0.1")
	np := c.clusterPolicy("a", `
tier: Admin
priority: 7
subject: {namespaces: {matchLabels: {test: TEST}}}
ingress:
- {action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {test: TEST}}, podSelector: {matchLabels: {app: web}}}}]}`)
	c.expectClusterPeers(np, policy.Ingress, "10.9.0.1")
	before, err := c.clusterEndpointOf(np)
	if err != nil {
		t.Fatal(err)
	}

	next := crd.DeepCopy()
	versions, _, err := unstructured.NestedSlice(next.Object, "spec", "versions")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range versions {
		v := v.(map[string]any)
		v["served"] = v["name"] == "v1beta1"
	}
	if err := unstructured.SetNestedSlice(next.Object, versions, "spec", "versions"); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(ctx, client.ApplyConfigurationFromUnstructured(next), client.FieldOwner("test"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	live := &unstructured.Unstructured{}
	live.SetGroupVersionKind(schema.GroupVersionKind{Group: cnp.GroupVersion.Group, Version: "v1beta1", Kind: "ClusterNetworkPolicy"})
	eventually(t, func() error { // the API server needs a moment to serve the version
		if err := c.List(ctx, &cnp.ClusterNetworkPolicyList{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("v1alpha2 is served: %v", err)
		}
		if err := c.Get(ctx, client.ObjectKeyFromObject(np), live); err != nil {
			return err
		}
		if err := unstructured.SetNestedField(live.Object, int64(8), "spec", "priority"); err != nil {
			return err
		}
		return c.Update(ctx, live)
	})
	eventually(t, func() error {
		if err := c.Get(ctx, client.ObjectKeyFromObject(np), live); err != nil {
			return err
		}
		now := &v1alpha1.ClusterPolicyEndpoint{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(before), now); err != nil {
			return err
		}
		if now.UID != before.UID {
			t.Fatal("it was deleted meanwhile")
		}
		conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions")
		if len(conditions) != 1 || conditions[0].(map[string]any)["observedGeneration"] != live.GetGeneration() || now.Spec.Priority != 8 {
			return fmt.Errorf("priority %d, conditions %v at generation %d", now.Spec.Priority, conditions, live.GetGeneration())
		}
		return nil
	})
}

// addressesOf returns the peers of the first rule: CIDRs, and the addresses of groups.
func (c *cluster) addressesOf(rules []v1alpha1.Rule) (string, error) {
	var all []string
	if len(rules) == 0 {
		return "", nil
	}
	for _, p := range rules[0].Peers {
		switch {
		case len(p.DomainNames) > 0:
			for _, n := range p.DomainNames {
				all = append(all, string(n))
			}
			continue
		case p.Group == nil:
			all = append(all, string(p.CIDR))
			continue
		}
		addresses, err := c.addresses(shared, p.Group.Name)
		if err != nil {
			return "", err
		}
		all = append(all, strings.Fields(addresses)...)
	}
	slices.Sort(all)
	return strings.Join(all, " "), nil
}

// expectClusterEvent waits for an Event on a policy. Those of objects without a namespace are in default.
func (c *cluster) expectClusterEvent(np *cnp.ClusterNetworkPolicy, reason, note string) {
	c.t.Helper()
	eventually(c.t, func() error {
		var list eventsv1.EventList
		if err := c.List(ctx, &list, client.InNamespace(metav1.NamespaceDefault)); err != nil {
			return err
		}
		var notes []string
		for _, e := range list.Items {
			if e.Regarding.Kind == "ClusterNetworkPolicy" && e.Regarding.UID == np.UID && e.Reason == reason && e.Type == corev1.EventTypeWarning {
				notes = append(notes, e.Note)
			}
		}
		if !slices.ContainsFunc(notes, func(n string) bool { return strings.Contains(n, note) }) {
			return fmt.Errorf("events say %q, want %q among them", notes, note)
		}
		return nil
	})
}

func TestAClusterPolicyThatIsRejectedIsolatesItsPods(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false) // it ends last: it has to delete the objects when the kind is gone
	crd := c.installClusterKind("cluster-network-policy-experimental")
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
		c.expectNoClusterEndpoints()
	})
	meta := metav1.ObjectMeta{Name: c.prefix + "nopeers"}
	deny := &admissionv1.ValidatingAdmissionPolicy{ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
		MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
			Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
			Rule:       admissionv1.Rule{APIGroups: []string{v1alpha1.GroupVersion.Group}, APIVersions: []string{"*"}, Resources: []string{"clusterpolicyendpoints"}},
		}}}},
		Validations: []admissionv1.Validation{{Expression: "!has(object.spec.ingress) || object.spec.ingress.all(r, !has(r.peers))", Message: "no peers here"}},
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
	probe := &v1alpha1.ClusterPolicyEndpoint{ObjectMeta: metav1.ObjectMeta{Name: c.prefix + "probe"}, Spec: v1alpha1.ClusterPolicyEndpointSpec{
		PolicyRef: v1alpha1.PolicyReference{Kind: "Test", Name: "probe"}, Tier: v1alpha1.TierAdmin,
		Ingress: []v1alpha1.Rule{{Action: v1alpha1.ActionDeny, Peers: []v1alpha1.Peer{{CIDR: "192.0.2.0/24"}}}},
	}}
	eventually(t, func() error { // the API server needs a moment to apply it
		if err := c.Create(ctx, probe.DeepCopy(), client.DryRunAll); !apierrors.IsInvalid(err) {
			return fmt.Errorf("not rejected yet: %v", err)
		}
		return nil
	})
	c.pod("shop", "w1", web, "10.9.0.1")
	np := c.clusterPolicy("a", `
tier: Admin
priority: 7
subject: {namespaces: {matchLabels: {test: TEST}}}
ingress:
- {action: Accept, from: [{namespaces: {}}]}
- {name: web, action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {test: TEST}}, podSelector: {matchLabels: {app: web}}}}]}`)
	c.expectClusterEvent(np, v1alpha1.ReasonRejected, "no peers here")
	c.expectPolicyCondition(np, metav1.ConditionFalse, "no peers here")
	eventually(t, func() error {
		cpe, err := c.clusterEndpointOf(np)
		if err != nil {
			return err
		}
		if r := cpe.Spec.Ingress; len(r) != 1 || r[0].Name != "web" || r[0].Action != v1alpha1.ActionDeny || len(r[0].Peers) > 0 {
			return fmt.Errorf("rules %+v", r)
		}
		return nil
	})
	c.delete(binding)
	eventually(t, func() error {
		cpe, err := c.clusterEndpointOf(np)
		if err == nil && len(cpe.Spec.Ingress) != 2 {
			err = fmt.Errorf("rules %+v", cpe.Spec.Ingress)
		}
		return err
	})
	c.expectPolicyCondition(np, metav1.ConditionTrue, "")
}

func TestAdminNetworkPoliciesAreCounted(t *testing.T) {
	c := newCluster(t)
	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(adminNetworkPolicyCRD), &crd.Object); err != nil {
		t.Fatal(err)
	}
	c.create(crd)
	t.Cleanup(func() { c.delete(crd) })
	config, err := metadata.NewForConfig(user)
	if err != nil {
		t.Fatal(err)
	}
	resource := config.Resource(adminKinds["AdminNetworkPolicy"])
	expect := func(want int64) {
		t.Helper()
		eventually(t, func() error {
			n, err := count(ctx, resource)
			if err == nil && n != want {
				err = fmt.Errorf("%d are counted, want %d", n, want)
			}
			return err
		})
	}
	for i := range int64(3) {
		np := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"name": fmt.Sprint(c.prefix, i)}}}
		np.SetGroupVersionKind(schema.GroupVersionKind{Group: cnp.GroupVersion.Group, Version: "v1alpha1", Kind: "AdminNetworkPolicy"})
		eventually(t, func() error { return c.Create(ctx, np) }) // the API server needs a moment to serve the kind
		expect(i + 1)
	}
	if n, err := count(ctx, config.Resource(adminKinds["BaselineAdminNetworkPolicy"])); n != 0 || err != nil {
		t.Errorf("of a kind that the cluster does not have: %d, %v", n, err)
	}
}

const adminNetworkPolicyCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: adminnetworkpolicies.policy.networking.k8s.io
  annotations: {api-approved.kubernetes.io: "https://github.com/kubernetes-sigs/network-policy-api/pull/30"}
spec:
  group: policy.networking.k8s.io
  scope: Cluster
  names: {kind: AdminNetworkPolicy, listKind: AdminNetworkPolicyList, plural: adminnetworkpolicies, singular: adminnetworkpolicy}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}
`
