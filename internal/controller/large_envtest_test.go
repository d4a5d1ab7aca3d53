//go:build envtest

package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// blocks are the blocks of a rule, so many that the policy is kept as an outline.
func blocks(first, count int) string {
	var out []string
	for i := range count {
		out = append(out, fmt.Sprintf("{ipBlock: {cidr: 192.0.%d.%d/32}}", (first+i)>>7, 2*(first+i)&255))
	}
	return strings.Join(out, ", ")
}

// largePolicy is a policy with a group and so many blocks.
func largePolicy(count int) string {
	return "{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}, {from: [" + blocks(0, count) + "], ports: [{port: 80}]}]}"
}

// expectBlocks waits until a policy's PolicyEndpoint has so many peers, and its status says so.
func (c *cluster) expectBlocks(np *networkingv1.NetworkPolicy, count int) *v1alpha1.PolicyEndpoint {
	c.t.Helper()
	var pe *v1alpha1.PolicyEndpoint
	eventually(c.t, func() (err error) {
		if pe, err = c.endpointOf(np); err != nil {
			return err
		}
		n := 0
		for _, r := range pe.Spec.Ingress {
			n += len(r.Peers)
		}
		if n != count+1 || pe.Status.Peers != int32(n) || pe.Spec.PolicyRef.Generation != np.Generation || pe.Status.ObservedGeneration != pe.Generation {
			return fmt.Errorf("%d peers, want %d; status %+v", n, count+1, pe.Status)
		}
		if !meta.IsStatusConditionTrue(pe.Status.Conditions, v1alpha1.ConditionResolved) {
			return fmt.Errorf("conditions %+v", pe.Status.Conditions)
		}
		return nil
	})
	return pe
}

// The controller keeps outlines of large policies, and writes all of them nevertheless.
func TestLargePolicies(t *testing.T) {
	c := newCluster(t, "shop")
	stop := startController(t, false)
	c.pod("shop", "w1", web, "10.20.0.1")
	np := c.policy("shop", "large", largePolicy(600))
	c.expectBlocks(np, 600)
	c.expectPeers(np, "Ingress", "10.20.0.1")
	np = c.policy("shop", "large", largePolicy(700))
	pe := c.expectBlocks(np, 700)

	// Another client's edit, and a deletion.
	edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress[1].Peers = pe.Spec.Ingress[1].Peers[:10] })
	pe = c.expectBlocks(np, 700)
	c.delete(pe)
	c.expectBlocks(np, 700)

	// A change of the label alone.
	edit(c, np, func(np *networkingv1.NetworkPolicy) {
		np.Labels = map[string]string{v1alpha1.LabelEnforcement: v1alpha1.LabelledAudit}
	})
	eventually(t, func() error {
		pe, err := c.endpointOf(np)
		if err == nil && pe.Spec.Enforcement != v1alpha1.EnforcementAudit {
			err = errors.New("it is enforced")
		}
		return err
	})
	edit(c, np, func(np *networkingv1.NetworkPolicy) { np.Labels = nil })
	eventually(t, func() error {
		pe, err := c.endpointOf(np)
		if err == nil && pe.Spec.Enforcement != v1alpha1.EnforcementEnforce {
			err = errors.New("it is audited")
		}
		return err
	})
	c.expectBlocks(np, 700)

	// A restart, after edits of the policy and, by another client, of its PolicyEndpoint.
	stop()
	np = c.policy("shop", "large", largePolicy(800))
	c.pod("shop", "w2", web, "10.20.0.2")
	stop = startController(t, false)
	c.expectBlocks(np, 800)
	c.expectPeers(np, "Ingress", "10.20.0.1 10.20.0.2")
	stop()
	pe = c.expectBlocks(np, 800)
	edit(c, pe, func(pe *v1alpha1.PolicyEndpoint) { pe.Spec.Ingress = nil })
	startController(t, false)
	c.expectBlocks(np, 800)

	// It becomes small, and goes.
	np = c.policy("shop", "large", "{podSelector: {matchLabels: {app: db}}, ingress: [{from: ["+blocks(0, 2)+"]}]}")
	c.expectBlocks(np, 1)
	np = c.policy("shop", "large", largePolicy(600))
	c.expectBlocks(np, 600)
	c.delete(np)
	c.expectGone(&v1alpha1.PolicyEndpointList{}, c.ns("shop"))
}

// A restart writes nothing for large policies, and what is in force of them stays meanwhile.
func TestARestartWithLargePoliciesWritesNothing(t *testing.T) {
	c := newCluster(t, "shop")
	stop := startController(t, false)
	c.pod("shop", "w1", web, "10.21.0.1")
	var all []*networkingv1.NetworkPolicy
	for i := range 10 {
		all = append(all, c.policy("shop", fmt.Sprint("large-", i), largePolicy(600+i)))
	}
	for i, np := range all {
		c.expectBlocks(np, 600+i)
	}
	stop()
	before := c.versions()
	startController(t, false)
	last := c.policy("shop", "last", largePolicy(650)) // resolved after the others
	c.expectBlocks(last, 650)
	for name, version := range c.versions() {
		if old, ok := before[name]; ok && old != version {
			t.Errorf("%s was written", name)
		}
	}
}

// The version before of a policy that does not fit any more stays in force, until another client takes it away: nothing has its content then.
func TestHostileAVersionBeforeThatIsLostIsolates(t *testing.T) {
	c := newCluster(t, "shop")
	startController(t, false)
	np := c.policy("shop", "large", largePolicy(600))
	c.expectBlocks(np, 600)
	np = c.policy("shop", "large", strings.TrimSuffix(largePolicy(600), "]}")+tooManyRules()+"]}")
	var pe *v1alpha1.PolicyEndpoint
	eventually(t, func() (err error) {
		if pe, err = c.endpointOf(np); err != nil {
			return err
		}
		if cond := meta.FindStatusCondition(pe.Status.Conditions, v1alpha1.ConditionResolved); cond == nil || cond.Reason != v1alpha1.ReasonTooLarge {
			return fmt.Errorf("condition %+v", cond)
		}
		return nil
	})
	if len(pe.Spec.Ingress) == 0 {
		t.Fatal("the version before does not stay")
	}
	c.delete(pe)
	c.expectIsolated(np, v1alpha1.ReasonTooLarge)
}

// tooManyRules are more rules than a PolicyEndpoint has room for.
func tooManyRules() string {
	var out strings.Builder
	for i := range v1alpha1.MaxRules + 1 {
		fmt.Fprintf(&out, ", {from: [{ipBlock: {cidr: 10.%d.%d.0/24}}], ports: [{port: %d}]}", i/250, i%250, i+1)
	}
	return out.String()
}
