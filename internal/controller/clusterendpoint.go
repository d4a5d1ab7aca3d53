package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/resolver"
)

// resolveNodes gives nodes to the resolver.
func (c *Controller) resolveNodes() handler.TypedEventHandler[*corev1.Node, request] {
	return changed(func(q queue, old, now **corev1.Node) {
		c.feed(q, "node", "", time.Time{}, func() resolver.Changes {
			if now == nil {
				return c.resolver.DeleteNode((*old).Name)
			}
			return c.resolver.SetNode(resolver.NodeOf(*now))
		})
	})
}

// clusterEndpoints enqueues a ClusterPolicyEndpoint that any client wrote, this controller included, to be compared.
func (c *Controller) clusterEndpoints() handler.TypedEventHandler[*v1alpha1.ClusterPolicyEndpoint, request] {
	return changed(func(q queue, old, now **v1alpha1.ClusterPolicyEndpoint) {
		c.trackClusterEndpoint(old, now)
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.resolver.Started() {
			return
		}
		q.Add(request{kind: clusterEndpoint, name: nameOf(old, now)})
	})
}

// reconcileClusterEndpoint makes one ClusterPolicyEndpoint, its status and its policy's what they should be.
func (c *Controller) reconcileClusterEndpoint(ctx context.Context, name string) error {
	key := types.NamespacedName{Name: name}
	c.mu.Lock()
	want, isWanted := c.resolver.ClusterEndpoint(name)
	synced := c.cluster.synced
	if isWanted {
		c.slices.References.Add(key, want.Groups) // from here on these groups are not forgotten
	}
	c.mu.Unlock()
	cpe := &v1alpha1.ClusterPolicyEndpoint{}
	// A version that the API server rejects must still isolate its pods.
	found, err := c.get(ctx, key, cpe)
	if err != nil {
		return err
	}
	isolates := found && isWanted && resolver.IsolatesCluster(&cpe.Spec, want.Spec)
	switch {
	case !isWanted && !synced:
		return nil // its policy may come yet
	case !isWanted:
		if err := c.delete(ctx, key, cpe); err != nil {
			return err
		}
		c.refer(key, nil, nil)
		return nil
	}
	for _, g := range want.Groups {
		if c.isPresent(g) {
			continue
		}
		waits, err := c.writeGroup(ctx, g, request{kind: clusterEndpoint, name: key})
		switch {
		case c.isPresent(g): // an error is about another slice
		case err != nil:
			return c.clusterRejected(ctx, &want, isolates, err)
		case waits:
			return nil
		default: // the policy was edited in the meantime, or another client deleted a slice
			c.queue.Add(request{kind: clusterEndpoint, name: key})
			return nil
		}
	}
	cpe.Name = name
	if _, err := c.put(ctx, cpe, func() bool { return plan.SetClusterEndpoint(cpe, &want) }); err != nil {
		return c.clusterRejected(ctx, &want, isolates, err)
	}
	c.refer(key, want.Groups, want.Problems)
	return c.reportCluster(ctx, &want, want.Problems, cpe)
}

// clusterRejected reports that the API server rejects a policy's objects, and schedules another try. The version before stays in
// force if it is about the same pods. Otherwise it writes a version in which every rule is closed, which may be accepted: it is
// small and needs no groups.
func (c *Controller) clusterRejected(ctx context.Context, want *resolver.ClusterEndpoint, isolates bool, err error) error {
	problem, isFailure, ok := plan.Rejection(err)
	if !ok {
		return err
	}
	if !isolates {
		cpe := &v1alpha1.ClusterPolicyEndpoint{}
		cpe.Name = want.Name
		if _, failed := c.put(ctx, cpe, func() bool { return plan.SetClusterEndpoint(cpe, want.Isolating()) }); failed != nil {
			log.FromContext(ctx).V(1).Info("Cannot isolate the pods of a rejected policy", "reason", failed.Error())
		}
	}
	c.setUnresolved(types.NamespacedName{Name: want.Name}, []resolver.Problem{problem})
	if !isFailure {
		err = nil
		c.queue.AddAfter(request{kind: clusterEndpoint, name: types.NamespacedName{Name: want.Name}}, maxPause)
	}
	cpe := &v1alpha1.ClusterPolicyEndpoint{}
	found, failed := c.get(ctx, types.NamespacedName{Name: want.Name}, cpe)
	if !found {
		cpe = nil
	}
	return errors.Join(err, failed, c.reportCluster(ctx, want, []resolver.Problem{problem}, cpe))
}

// reportCluster writes to the status of a ClusterPolicyEndpoint, unless it is nil, and of its policy whether all of the policy is
// enforced.
func (c *Controller) reportCluster(ctx context.Context, want *resolver.ClusterEndpoint, problems []resolver.Problem, cpe *v1alpha1.ClusterPolicyEndpoint) error {
	condition := plan.Condition(problems)
	isNew := cpe == nil || plan.NeedsNotes(&cpe.Status, condition)
	if cpe != nil {
		changed, note := c.setInForce(cpe, &cpe.Status, time.Now()) // before observedGeneration changes
		if plan.SetClusterStatus(cpe, condition) || changed {
			cpe.ManagedFields = untracked
			err := timed("ClusterPolicyEndpoint", "update-status", func() error { return c.client.Status().Update(ctx, cpe) })
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) { // the event of what happened to it enqueues it again
				return err
			}
		}
		c.cluster.note(want, nil, v1alpha1.ReasonNotOnAllNodes, "Enforce", note)
	}
	if isNew {
		for _, n := range plan.Notes(problems) {
			c.cluster.note(want, cpe, n.Reason, "Resolve", n.Text)
		}
	}
	return c.cluster.report(ctx, want, condition, cpe)
}

// note writes an Event on a policy; no text: none. The resourceVersion of its ClusterPolicyEndpoint makes the recorder write a new
// Event after an edit, instead of counting an old one.
func (p *clusterPolicies) note(want *resolver.ClusterEndpoint, cpe *v1alpha1.ClusterPolicyEndpoint, reason, action, text string) {
	p.c.mu.Lock()
	np := p.policies[want.Policy]
	p.c.mu.Unlock()
	switch {
	case text == "" || np == nil || np.UID != want.UID:
	case cpe == nil:
		p.c.recorder.Eventf(np, nil, corev1.EventTypeWarning, reason, action, "%s", text)
	default:
		p.c.recorder.Eventf(np, cpe, corev1.EventTypeWarning, reason, action, "%s", text)
	}
}

// report applies conditions to the status of a policy, as the only fields of this manager's. cpe is its ClusterPolicyEndpoint, nil if there is none.
func (p *clusterPolicies) report(ctx context.Context, want *resolver.ClusterEndpoint, condition metav1.Condition, cpe *v1alpha1.ClusterPolicyEndpoint) error {
	p.c.mu.Lock()
	np := p.policies[want.Policy]
	p.c.mu.Unlock()
	if np == nil || np.UID != want.UID {
		return nil
	}
	conditions, differs := plan.PolicyConditions(np.Status.Conditions, want.Spec, condition, cpe)
	if !differs {
		return nil
	}
	var content []any
	for i := range conditions {
		c, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&conditions[i])
		if err != nil {
			return err
		}
		content = append(content, c)
	}
	client, ok := p.versions[np.APIVersion]
	if !ok {
		return fmt.Errorf("report the status of ClusterNetworkPolicy %s: it was read in version %q", np.Name, np.APIVersion)
	}
	obj := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"conditions": content}}}
	obj.SetAPIVersion(np.APIVersion)
	obj.SetKind(want.Spec.PolicyRef.Kind)
	obj.SetName(want.Policy)
	obj.SetUID(want.UID) // not one that was created again under the name
	err := timed("ClusterNetworkPolicy", "apply-status", func() error {
		_, err := client.ApplyStatus(ctx, want.Policy, obj, metav1.ApplyOptions{FieldManager: Name, Force: true})
		return err
	})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // the event of what happened to it enqueues it again
		return nil
	}
	return err
}
