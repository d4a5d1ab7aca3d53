//go:build envtest

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/stream"
)

// A ClusterPolicyEndpoint's status says on how many nodes of all selected namespaces it is in force.
func TestInForceOfClusterPolicies(t *testing.T) {
	c := newCluster(t, "shop", "tools")
	c.streamObjects()
	first, second := c.node("cluster-1", "192.0.2.11"), c.node("cluster-2", "192.0.2.12")
	db := map[string]string{"app": "db"}
	c.runs(c.bound("shop", "db", "cluster-1", db), "10.9.7.1")
	c.runs(c.bound("tools", "db", "cluster-2", db), "10.9.7.2")
	address := startWithStream(t)
	s, s2 := c.connect(address, first), c.connect(address, second)
	s2.reportInForce()

	crd := c.installClusterKind("cluster-network-policy")
	t.Cleanup(func() {
		if err := client.IgnoreNotFound(c.Delete(ctx, crd)); err != nil {
			t.Error(err)
		}
		c.expectNoClusterEndpoints()
	})
	np := c.clusterPolicy("in-force", `
tier: Admin
priority: 7
subject: {pods: {namespaceSelector: {matchLabels: {test: TEST}}, podSelector: {matchLabels: {app: db}}}}
ingress:
- {action: Deny, from: [{namespaces: {}}]}`)
	expect := func(want metav1.ConditionStatus, message string) *v1alpha1.ClusterPolicyEndpoint {
		t.Helper()
		var out *v1alpha1.ClusterPolicyEndpoint
		eventually(t, func() error {
			cpe, err := c.clusterEndpointOf(np)
			if err != nil {
				return err
			}
			out = cpe
			condition := meta.FindStatusCondition(cpe.Status.Conditions, v1alpha1.ConditionInForce)
			if condition == nil {
				return errors.New("no condition")
			}
			if condition.Status != want || !strings.Contains(condition.Message, message) || condition.ObservedGeneration != cpe.Generation {
				return fmt.Errorf("the condition is %+v", condition)
			}
			if err := c.Get(ctx, client.ObjectKeyFromObject(np), np); err != nil {
				return err
			}
			if of := meta.FindStatusCondition(np.Status.Conditions, plan.InForceConditionOfPolicy); of == nil || of.Status != want || of.Message != condition.Message || of.ObservedGeneration != np.Generation {
				return fmt.Errorf("the policy's condition is %+v", of)
			}
			return nil
		})
		return out
	}
	cpe := expect(metav1.ConditionFalse, "on 0 of 2 nodes")
	for _, from := range []*agentStream{s, s2} {
		m := &stream.InForce{Full: true, Policies: []*stream.PolicyState{{
			Kind: stream.PolicyState_CLUSTER_POLICY_ENDPOINT, Name: cpe.Name, Uid: string(cpe.UID), Generation: cpe.Generation,
		}}}
		if err := from.Send(&stream.AgentMessage{Message: &stream.AgentMessage_InForce{InForce: m}}); err != nil {
			t.Fatal(err)
		}
	}
	expect(metav1.ConditionTrue, "all 2 nodes")

	// An hour in which 20 nodes are replaced per minute. No agent reports from the new ones.
	np.Status.Conditions = append(np.Status.Conditions, metav1.Condition{Type: "example.com/Ready", Status: "True", Reason: "Ready", LastTransitionTime: metav1.Now()})
	if err := c.Status().Update(ctx, np); err != nil {
		t.Fatal(err)
	}
	for i := range 60 * 20 {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("replaced-%d", i)}}
		c.create(node)
		pod := c.bound("shop", node.Name, node.Name, db)
		c.runs(pod, fmt.Sprintf("10.10.%d.%d", i/250, i%250+1))
		if i == 600 { // this one stays until the status names it
			expect(metav1.ConditionFalse, "on 2 of 3 nodes that have its pods; not on node replaced-600")
		}
		c.delete(pod)
		c.delete(node)
	}
	expect(metav1.ConditionTrue, "all 2 nodes")
	ours := 0
	for _, m := range np.ManagedFields {
		if m.Manager == Name {
			ours++
		}
	}
	if len(np.Status.Conditions) != 3 || ours > 2 || meta.FindStatusCondition(np.Status.Conditions, "example.com/Ready") == nil {
		t.Errorf("conditions %+v, %d managedFields", np.Status.Conditions, ours)
	}
	for _, condition := range append(np.Status.Conditions, cpe.Status.Conditions...) {
		if strings.Contains(condition.Message, "replaced-") {
			t.Errorf("a node that is gone is named: %s", condition.Message)
		}
	}
}
