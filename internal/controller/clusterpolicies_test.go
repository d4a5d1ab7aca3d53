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

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
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
