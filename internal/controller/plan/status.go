package plan

import (
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/resolver"
)

// maxMessage bounds a condition's message and an event's note, in bytes; the API's limit for a note is 1024.
const maxMessage = 1024

// Condition reports whether all of a policy can be enforced.
func Condition(problems []resolver.Problem) metav1.Condition {
	if len(problems) == 0 {
		return metav1.Condition{Type: v1alpha1.ConditionResolved, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonResolved,
			Message: "The spec contains all of the policy"}
	}
	return metav1.Condition{Type: v1alpha1.ConditionResolved, Status: metav1.ConditionFalse, Reason: problems[0].Reason, Message: message(problems)}
}

// SetStatus sets a PolicyEndpoint's status and reports whether that changed anything.
func SetStatus(pe *v1alpha1.PolicyEndpoint, condition metav1.Condition) bool {
	changed := setAudited(&pe.Status, pe.Generation, pe.Spec.Enforcement)
	return setStatus(&pe.Status, pe.Generation, pe.Spec.PolicyRef.Generation, condition, pe.Spec.Ingress, pe.Spec.Egress) || changed
}

func setStatus(s *v1alpha1.EndpointStatus, generation, policyGeneration int64, condition metav1.Condition, all ...[]v1alpha1.Rule) bool {
	condition.ObservedGeneration = generation
	changed := meta.SetStatusCondition(&s.Conditions, condition)
	var peers int32
	for _, rules := range all {
		peers += resolver.PeerCount(rules)
	}
	if s.Peers != peers || s.ObservedGeneration != generation || s.PolicyGeneration != policyGeneration {
		s.Peers, s.ObservedGeneration, s.PolicyGeneration = peers, generation, policyGeneration
		changed = true
	}
	return changed
}

// setAudited sets or removes the condition Audited, and reports whether that changed anything.
func setAudited(s *v1alpha1.EndpointStatus, generation int64, enforcement v1alpha1.Enforcement) bool {
	if enforcement != v1alpha1.EnforcementAudit {
		return meta.RemoveStatusCondition(&s.Conditions, v1alpha1.ConditionAudited)
	}
	return meta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionAudited, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonLabelled, ObservedGeneration: generation,
		Message: "The policy isolates no pod and denies nothing; agents record what would change if it were enforced",
	})
}

// Note is the text of an Event about a policy's problems with one reason.
type Note struct{ Reason, Text string }

// Notes returns the Events to write about a policy, one for each reason.
func Notes(problems []resolver.Problem) []Note {
	var reasons []string
	byReason := map[string][]resolver.Problem{}
	for _, p := range problems {
		if byReason[p.Reason] == nil {
			reasons = append(reasons, p.Reason)
		}
		byReason[p.Reason] = append(byReason[p.Reason], p)
	}
	var out []Note
	for _, reason := range reasons {
		out = append(out, Note{reason, message(byReason[reason])})
	}
	return out
}

// NeedsNotes reports whether a condition differs from the one in a status in what Events report.
func NeedsNotes(status *v1alpha1.EndpointStatus, condition metav1.Condition) bool {
	old := meta.FindStatusCondition(status.Conditions, condition.Type)
	return old == nil || old.Reason != condition.Reason || old.Message != condition.Message
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

// Rejection returns the problem to report to the policy's author if the API server rejected an object because
// of its content or its namespace; false for other errors. isFailure reports whether the controller counts it
// as a failed reconciliation, which retries by itself; otherwise the caller has to retry later, because the
// cause may go away: an admission policy, or a schema that is older than the controller.
func Rejection(err error) (problem resolver.Problem, isFailure, ok bool) {
	problem = resolver.Problem{Reason: v1alpha1.ReasonRejected, Message: fmt.Sprintf("the API server rejects the policy's objects: %v", err)}
	switch {
	case apierrors.IsForbidden(err) || apierrors.IsBadRequest(err):
		return problem, true, true
	case apierrors.IsInvalid(err):
		return problem, false, true
	case apierrors.IsRequestEntityTooLargeError(err):
		problem.Reason = v1alpha1.ReasonTooLarge
		return problem, false, true
	}
	return resolver.Problem{}, true, false
}
