package controller

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/kidoban/kidoban/api/v1alpha1"

	"github.com/kidoban/kidoban/internal/controller/plan"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
	"github.com/kidoban/kidoban/internal/resolver"
)

// reconcileEndpoint makes one PolicyEndpoint what it should be.
func (c *Controller) reconcileEndpoint(ctx context.Context, name types.NamespacedName) error {
	c.mu.Lock()
	want := c.want(name)
	if want != nil {
		c.slices.References.Add(name, want.Groups) // from here on these groups are not forgotten
	}
	c.mu.Unlock()
	if want != nil && want.IsPending {
		return nil // enqueued again when its policy is resolved
	}
	pe := &v1alpha1.PolicyEndpoint{}
	have := pe
	if found, err := c.get(ctx, name, pe); err != nil {
		return err
	} else if !found {
		have = nil
	}
	if want == nil && have != nil && !c.mayDelete(have) {
		return nil
	}
	// A version that the API server rejects must still isolate its pods.
	isolates := have != nil && want != nil && resolver.Isolates(&have.Spec, want.Spec)
	for _, step := range plan.Endpoint(want, have, c.isPresent) {
		log.FromContext(ctx).V(1).Info("Reconciling a PolicyEndpoint", "step", step.Action, "group", step.Group, "reason", step.Reason)
		switch step.Action {
		case plan.WriteGroup:
			waits, err := c.writeGroup(ctx, step.Group, request{kind: endpoint, name: name})
			switch {
			case waits:
				return nil
			case c.isPresent(step.Group): // an error is about another slice
			case err != nil:
				return c.rejected(ctx, want, isolates, err)
			default: // the policy was edited in the meantime, or another client deleted a slice
				c.queue.Add(request{kind: endpoint, name: name})
				return nil
			}
		case plan.WriteEndpoint:
			var err error
			if want, err = c.whole(ctx, want); want == nil {
				return err
			}
			pe.Namespace, pe.Name = name.Namespace, name.Name
			if _, err := c.put(ctx, pe, func() bool { return plan.SetEndpoint(pe, want) }); err != nil {
				return c.rejected(ctx, want, isolates, err)
			}
		case plan.DeleteEndpoint:
			if err := c.delete(ctx, name, pe); err != nil {
				return err
			}
		case plan.QueueStatus:
			if pe.UID != "" { // else its namespace is terminating
				c.queue.Add(request{kind: status, name: name})
			}
		}
	}
	if want == nil {
		c.refer(name, nil, nil)
	} else {
		c.refer(name, want.Groups, want.Problems)
	}
	return nil
}

// mayDelete reports whether a PolicyEndpoint whose policy is not known may be deleted.
func (c *Controller) mayDelete(pe *v1alpha1.PolicyEndpoint) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.applications.mayDelete(pe)
}

// want returns what a PolicyEndpoint should be, or nil if it should not exist. The caller holds mu.
func (c *Controller) want(name types.NamespacedName) *resolver.Endpoint {
	if want, ok := c.resolver.Endpoint(name); ok {
		return &want
	}
	return nil
}

// rejected reports to a policy's author that the API server rejects the policy's objects, and schedules
// another try. Other errors it returns as they are. If no version is there that isolates the policy's pods, it
// writes one without rules, which may be accepted: it is small and needs no groups.
func (c *Controller) rejected(ctx context.Context, want *resolver.Endpoint, isolates bool, err error) error {
	problem, isFailure, ok := plan.Rejection(err)
	if !ok {
		return err
	}
	if !isolates {
		pe := &v1alpha1.PolicyEndpoint{}
		pe.Namespace, pe.Name = want.Name.Namespace, want.Name.Name
		if _, failed := c.put(ctx, pe, func() bool { return plan.SetEndpoint(pe, want.Isolating()) }); failed != nil {
			log.FromContext(ctx).V(1).Info("Cannot isolate the pods of a rejected policy", "reason", failed.Error())
		}
	}
	if !isFailure {
		err = nil
		c.queue.AddAfter(request{kind: endpoint, name: want.Name}, maxPause)
	}
	reported := *want
	reported.Problems = []resolver.Problem{problem}
	c.setUnresolved(want.Name, reported.Problems)
	return errors.Join(err, c.report(ctx, &reported, &v1alpha1.PolicyEndpoint{}))
}

// reconcileStatus writes the status of a PolicyEndpoint whose spec is what it should be. For one that is not,
// reconcileEndpoint queues the status again.
func (c *Controller) reconcileStatus(ctx context.Context, name types.NamespacedName) error {
	c.mu.Lock()
	want := c.want(name)
	c.mu.Unlock()
	switch {
	case want == nil:
		return nil
	case want.IsPending: // its problems are not known yet
		c.queue.AddAfter(request{kind: status, name: name}, reportsWait)
		return nil
	}
	pe := &v1alpha1.PolicyEndpoint{}
	if found, err := c.get(ctx, name, pe); !found || plan.SetEndpoint(pe, want) {
		return err
	}
	return c.report(ctx, want, pe)
}

func (c *Controller) isPresent(key policy.GroupKey) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.slices.Present(key, c.resolver)
}

// setUnresolved counts a policy whose PolicyEndpoint or ClusterPolicyEndpoint is not written.
func (c *Controller) setUnresolved(name types.NamespacedName, problems []resolver.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unresolved.set(name, reasonOf(problems))
}

// reasonOf is the reason of the gravest problem of a policy; empty if there is none.
func reasonOf(problems []resolver.Problem) string {
	if len(problems) == 0 {
		return ""
	}
	return problems[0].Reason
}

// refer records the groups that a PolicyEndpoint or a ClusterPolicyEndpoint refers to and its problems, as they are on the API
// server now, and forgets the groups that no object refers to any more.
func (c *Controller) refer(name types.NamespacedName, groups []policy.GroupKey, problems []resolver.Problem) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unresolved.set(name, reasonOf(problems))
	for _, g := range c.slices.References.Set(name, groups) {
		c.enqueueUnused(c.queue, g, name.Namespace)
	}
}

// report writes to a PolicyEndpoint's status whether all of its policy is enforced, and writes Events on the
// policy about new problems. pe is the existing object, or empty.
func (c *Controller) report(ctx context.Context, want *resolver.Endpoint, pe *v1alpha1.PolicyEndpoint) error {
	if pe.UID == "" {
		found, err := c.get(ctx, want.Name, pe)
		if err != nil {
			return err
		}
		if !found {
			return c.writeEvents(ctx, want, nil)
		}
	}
	condition := plan.Condition(want.Problems)
	isNew := plan.NeedsNotes(&pe.Status, condition)
	late, note := c.setInForce(pe, &pe.Status, time.Now()) // before observedGeneration changes
	if changed := plan.SetStatus(pe, condition); !changed && !late {
		return c.noteLate(ctx, want, note)
	}
	pe.ManagedFields = untracked
	err := timed("PolicyEndpoint", "update-status", func() error { return c.client.Status().Update(ctx, pe) })
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) { // the event of what happened to it enqueues it again
		return nil
	}
	if err != nil {
		return err
	}
	if err := c.noteLate(ctx, want, note); err != nil || !isNew {
		return err
	}
	return c.writeEvents(ctx, want, pe)
}

// writeEvents writes an Event on the policy for each reason. The recorder only counts an Event that differs
// from an earlier one in nothing but its text. The resourceVersions of the policy and of its PolicyEndpoint,
// whose status was just written, are part of the Event: so the recorder writes a new one after an edit and
// after a change of the problems.
func (c *Controller) writeEvents(ctx context.Context, want *resolver.Endpoint, pe *v1alpha1.PolicyEndpoint) error {
	if want.Spec.PolicyRef.Kind == application.Kind {
		return nil // another controller's object
	}
	np := &networkingv1.NetworkPolicy{}
	if found, err := c.get(ctx, want.Policy, np); !found || np.UID != want.UID {
		return err
	}
	for _, note := range plan.Notes(want.Problems) {
		if pe == nil {
			c.recorder.Eventf(np, nil, corev1.EventTypeWarning, note.Reason, "Resolve", "%s", note.Text)
		} else {
			c.recorder.Eventf(np, pe, corev1.EventTypeWarning, note.Reason, "Resolve", "%s", note.Text)
		}
	}
	return nil
}
