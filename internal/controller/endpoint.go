package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/resolver"
)

// reconcileEndpoint makes one PolicyEndpoint what it should be: after the groups that it refers to.
func (c *Controller) reconcileEndpoint(ctx context.Context, name types.NamespacedName) error {
	c.mu.Lock()
	want, ok := c.resolver.Endpoint(name)
	if ok {
		c.references.add(name, want.Groups) // from here on they are not swept
	}
	c.mu.Unlock()
	if !ok {
		if err := c.delete(ctx, name, &v1alpha1.PolicyEndpoint{}); err != nil {
			return err
		}
		c.refer(name, nil)
		return nil
	}
	if want.Spec == nil { // nothing of it can be in force: what is there stays
		return c.report(ctx, want, &v1alpha1.PolicyEndpoint{})
	}
	for _, g := range want.Groups {
		if c.isPresent(g) {
			continue
		}
		if err := c.writeGroup(ctx, g); err != nil {
			return c.refused(ctx, want, err)
		}
		if !c.isPresent(g) { // the policy was edited meanwhile, or somebody deleted a slice
			c.queue.Add(request{endpoint, name})
			return nil
		}
	}
	pe := &v1alpha1.PolicyEndpoint{}
	pe.Namespace, pe.Name = name.Namespace, name.Name
	if _, err := c.put(ctx, pe, func() bool { return setEndpoint(pe, &want) }); err != nil {
		return c.refused(ctx, want, err)
	}
	c.refer(name, want.Groups)
	if pe.UID != "" && setStatus(pe, conditionOf(want.Problems)) { // without one, its namespace goes
		c.queue.Add(request{status, name}) // behind all that is to be enforced
	}
	return nil
}

// refused tells a policy's author where the API server refuses what the policy comes to. It is tried again: what refuses it may be a quota, an
// admission policy, or a schema that is older than this controller.
func (c *Controller) refused(ctx context.Context, want resolver.Endpoint, err error) error {
	problem := resolver.Problem{Reason: v1alpha1.ReasonRefused, Message: fmt.Sprintf("the API server refuses what it comes to: %v", err)}
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsBadRequest(err):
	case apierrors.IsInvalid(err):
		err = nil
	case apierrors.IsRequestEntityTooLargeError(err):
		problem.Reason, err = v1alpha1.ReasonTooLarge, nil
	default:
		return err
	}
	if err == nil { // it is told, and no failure of the controller's
		c.queue.AddAfter(request{endpoint, want.Name}, maxPause)
	}
	want.Problems = []resolver.Problem{problem}
	return errors.Join(err, c.report(ctx, want, &v1alpha1.PolicyEndpoint{}))
}

// reconcileStatus reports on a PolicyEndpoint that is what it should be. One that is not has its own request, which reports.
func (c *Controller) reconcileStatus(ctx context.Context, name types.NamespacedName) error {
	c.mu.Lock()
	want, ok := c.resolver.Endpoint(name)
	c.mu.Unlock()
	if !ok || want.Spec == nil {
		return nil
	}
	pe := &v1alpha1.PolicyEndpoint{}
	if found, err := c.get(ctx, name, pe); !found || setEndpoint(pe, &want) {
		return err
	}
	return c.report(ctx, want, pe)
}

func (c *Controller) isPresent(key policy.GroupKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, ok := c.groups[key]
	return ok && g.present
}

// refer notes which groups a PolicyEndpoint refers to now, and has those looked at that nobody refers to any more.
func (c *Controller) refer(name types.NamespacedName, groups []policy.GroupKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range c.references.set(name, groups) {
		c.queue.Add(request{group, types.NamespacedName(g)})
	}
}

// setEndpoint sets what of a PolicyEndpoint is ours and reports whether that changed anything.
func setEndpoint(pe *v1alpha1.PolicyEndpoint, want *resolver.Endpoint) bool {
	changed := setLabels(pe, map[string]string{
		v1alpha1.LabelManagedBy:  v1alpha1.ManagedByController,
		v1alpha1.LabelPolicyKind: want.Spec.PolicyRef.Kind,
		v1alpha1.LabelPolicyUID:  string(want.UID),
	})
	// the garbage collector deletes it with its policy; the policy's own deletion waits for nothing
	owner := metav1.OwnerReference{
		APIVersion: networkingv1.SchemeGroupVersion.String(), Kind: want.Spec.PolicyRef.Kind, Name: want.Policy.Name, UID: want.UID,
		Controller: new(true), BlockOwnerDeletion: new(false),
	}
	if !equality.Semantic.DeepEqual(pe.OwnerReferences, []metav1.OwnerReference{owner}) {
		pe.OwnerReferences = []metav1.OwnerReference{owner}
		changed = true
	}
	if !equality.Semantic.DeepEqual(&pe.Spec, want.Spec) {
		pe.Spec = *want.Spec.DeepCopy()
		changed = true
	}
	return changed
}

// report says in a PolicyEndpoint's status how far its policy is honoured, and, where that is new and not all, by events on the policy.
// pe is what is there, or empty.
func (c *Controller) report(ctx context.Context, want resolver.Endpoint, pe *v1alpha1.PolicyEndpoint) error {
	if pe.UID == "" {
		found, err := c.get(ctx, want.Name, pe)
		if err != nil {
			return err
		}
		if !found {
			return c.tell(ctx, want)
		}
	}
	condition := conditionOf(want.Problems)
	old := meta.FindStatusCondition(pe.Status.Conditions, condition.Type)
	isNew := old == nil || old.Reason != condition.Reason || old.Message != condition.Message
	if !setStatus(pe, condition) {
		return nil
	}
	pe.ManagedFields = untracked
	err := timed("PolicyEndpoint", "update-status", func() error { return c.client.Status().Update(ctx, pe) })
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // what happened to it has us look again
		return nil
	}
	if err != nil || !isNew {
		return err
	}
	return c.tell(ctx, want)
}

func setStatus(pe *v1alpha1.PolicyEndpoint, condition metav1.Condition) bool {
	condition.ObservedGeneration = pe.Generation
	changed := meta.SetStatusCondition(&pe.Status.Conditions, condition)
	var peers int32
	for _, rules := range [][]v1alpha1.Rule{pe.Spec.Ingress, pe.Spec.Egress} {
		for _, r := range rules {
			peers += int32(len(r.Peers))
		}
	}
	if pe.Status.Peers != peers || pe.Status.ObservedGeneration != pe.Generation {
		pe.Status.Peers, pe.Status.ObservedGeneration = peers, pe.Generation
		changed = true
	}
	return changed
}

// maxMessage bounds a condition's message and an event's note (the API takes 1024 bytes of that).
const maxMessage = 1024

func conditionOf(problems []resolver.Problem) metav1.Condition {
	if len(problems) == 0 {
		return metav1.Condition{Type: v1alpha1.ConditionResolved, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonResolved,
			Message: "All that the policy says is in spec"}
	}
	return metav1.Condition{Type: v1alpha1.ConditionResolved, Status: metav1.ConditionFalse, Reason: problems[0].Reason, Message: message(problems)}
}

// tell writes an event on the policy for each reason. The recorder only counts an event that differs from one before it in nothing but its
// text, so the policy's resourceVersion is part of the event: what an edit comes to is told.
func (c *Controller) tell(ctx context.Context, want resolver.Endpoint) error {
	np := &networkingv1.NetworkPolicy{}
	if found, err := c.get(ctx, want.Policy, np); !found || np.UID != want.UID {
		return err
	}
	byReason := map[string][]resolver.Problem{}
	for _, p := range want.Problems {
		byReason[p.Reason] = append(byReason[p.Reason], p)
	}
	for reason, problems := range byReason {
		c.recorder.Eventf(np, nil, corev1.EventTypeWarning, reason, "Resolve", "%s", message(problems))
	}
	return nil
}

// message lists problems, as many as fit.
func message(problems []resolver.Problem) string {
	var all []string
	for _, p := range problems {
		all = append(all, p.Message)
	}
	out := strings.Join(all, "; ")
	if len(out) > maxMessage {
		out = strings.ToValidUTF8(out[:maxMessage-len("…")], "") + "…"
	}
	return out
}
