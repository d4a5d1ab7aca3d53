//go:build envtest

package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy/application"
)

// applicationKind is a CustomResourceDefinition of the kind, which accepts every spec.
const applicationKind = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: applicationnetworkpolicies.networking.k8s.aws}
spec:
  group: networking.k8s.aws
  scope: Namespaced
  names: {kind: ApplicationNetworkPolicy, listKind: ApplicationNetworkPolicyList, plural: applicationnetworkpolicies, singular: applicationnetworkpolicy}
  versions:
  - name: v1alpha1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, x-kubernetes-preserve-unknown-fields: true}}}}
`

func (c *cluster) application(ns, name, spec string) *unstructured.Unstructured {
	c.t.Helper()
	obj := &unstructured.Unstructured{Object: map[string]any{}}
	obj.SetAPIVersion(application.Group + "/" + application.Version)
	obj.SetKind(application.Kind)
	obj.SetNamespace(c.ns(ns))
	obj.SetName(name)
	err := client.IgnoreNotFound(c.Get(ctx, client.ObjectKeyFromObject(obj), obj))
	content := map[string]any{}
	if err := errors.Join(err, yaml.Unmarshal([]byte(spec), &content)); err != nil {
		c.t.Fatal(err)
	}
	obj.Object["spec"] = content
	if obj.GetUID() == "" {
		err = c.Create(ctx, obj)
	} else {
		err = c.Update(ctx, obj)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	return obj
}

// expectEgress waits until these are the egress rules of a policy's PolicyEndpoint.
func (c *cluster) expectEgress(policy client.Object, want string) *v1alpha1.PolicyEndpoint {
	c.t.Helper()
	var out *v1alpha1.PolicyEndpoint
	eventually(c.t, func() error {
		var list v1alpha1.PolicyEndpointList
		if err := c.List(ctx, &list, client.InNamespace(policy.GetNamespace()), client.MatchingLabels{v1alpha1.LabelPolicyUID: string(policy.GetUID())}); err != nil {
			return err
		}
		if len(list.Items) != 1 {
			return fmt.Errorf("%d PolicyEndpoints of %s", len(list.Items), policy.GetName())
		}
		out = &list.Items[0]
		var rules []string
		for _, r := range out.Spec.Egress {
			var peers []string
			for _, p := range r.Peers {
				peers = append(peers, fmt.Sprint(p.DomainNames, p.CIDR))
			}
			rules = append(rules, strings.Join(peers, " "))
		}
		if got := strings.Join(rules, "; "); got != want {
			return fmt.Errorf("egress is %q, want %q", got, want)
		}
		return nil
	})
	return out
}

func TestApplicationNetworkPoliciesAddUp(t *testing.T) {
	c := newCluster(t, "shop")
	stop := startController(t, false)
	np := c.policy("shop", "web", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}")
	c.expectEgress(np, "[]192.0.2.0/24")

	crd := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(applicationKind), &crd.Object); err != nil {
		t.Fatal(err)
	}
	c.create(crd)
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
	})
	list := &unstructured.UnstructuredList{}
	list.SetAPIVersion(application.Group + "/" + application.Version)
	list.SetKind(application.Kind + "List")
	eventually(t, func() error { return c.List(ctx, list) })

	const names = "{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{domainNames: [API.example.com]}]}]}"
	app := c.application("shop", "web", names)
	pe := c.expectEgress(app, "[api.example.com]")
	if owner := pe.OwnerReferences[0]; owner.APIVersion != "networking.k8s.aws/v1alpha1" || owner.Kind != application.Kind || owner.Name != "web" {
		t.Errorf("owner %+v", owner)
	}
	if !slices.Equal(pe.Spec.PolicyTypes, []v1alpha1.PolicyType{v1alpha1.PolicyTypeEgress}) || pe.Spec.PodSelector.MatchLabels["app"] != "web" {
		t.Errorf("spec %+v", pe.Spec)
	}
	c.expectEgress(np, "[]192.0.2.0/24")
	eventually(t, func() error { // no DNS Service is there
		err := c.Get(ctx, client.ObjectKeyFromObject(pe), pe)
		if err == nil && !slices.ContainsFunc(pe.Status.Conditions, func(c metav1.Condition) bool { return c.Reason == v1alpha1.ReasonNoTrustedResolver }) {
			err = fmt.Errorf("conditions %v", pe.Status.Conditions)
		}
		return err
	})

	// A restart keeps the object, and no object of another controller is written to.
	stop()
	stop = startController(t, false)
	other := c.application("shop", "other", "{podSelector: {}, policyTypes: [Egress]}")
	c.expectEgress(other, "")
	if again := c.expectEgress(app, "[api.example.com]"); again.UID != pe.UID {
		t.Error("a restart replaced the PolicyEndpoint")
	}
	version := app.GetResourceVersion()
	if err := c.Get(ctx, client.ObjectKeyFromObject(app), app); err != nil || app.GetResourceVersion() != version {
		t.Errorf("the policy was written to: %v", err)
	}

	// A field of a later version closes its direction.
	app = c.application("shop", "web", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{domainNames: [api.example.com], paths: [/v1]}]}]}")
	c.expectEgress(app, "")
	c.delete(app)
	c.expectPolicyGone(app)
	c.delete(other)
	c.expectPolicyGone(other)

	app = c.application("shop", "web", names)
	c.expectEgress(app, "[api.example.com]")
	c.delete(crd)
	c.expectPolicyGone(app)
	c.expectEgress(np, "[]192.0.2.0/24")
	stop()
}

// expectPolicyGone waits until no PolicyEndpoint is a policy's.
func (c *cluster) expectPolicyGone(policy client.Object) {
	c.t.Helper()
	eventually(c.t, func() error {
		var list v1alpha1.PolicyEndpointList
		if err := c.List(ctx, &list, client.MatchingLabels{v1alpha1.LabelPolicyUID: string(policy.GetUID())}); err != nil || len(list.Items) == 0 {
			return err
		}
		return fmt.Errorf("%d PolicyEndpoints of %s", len(list.Items), policy.GetName())
	})
}
