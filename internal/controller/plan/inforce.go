package plan

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kidoban/kidoban/api/v1alpha1"
	"github.com/kidoban/kidoban/internal/controller/inforce"
)

// Times of the condition InForce, which bound the writes.
const (
	// steadyFor is how long a policy that is in force stays so in its status although it is missing on a node: a pod
	// that comes to a new node is the usual cause, and ends within a second.
	steadyFor = 5 * time.Second
	// progressEvery is the least time between two writes that report progress only.
	progressEvery = 10 * time.Second
	// lateAfter is when the message names a node.
	lateAfter = 10 * time.Second
	// noteAfter is when an Event reports that a policy takes long.
	noteAfter = time.Minute
)

// InForceTimes are when things about one policy happened; zero: never.
type InForceTimes struct {
	// Written is when the status was last written for the condition, Missing since when the policy is missing on a
	// node, and Noted when an Event reported it.
	Written, Missing, Noted time.Time
}

// SetInForce sets the condition InForce and the counts of nodes of a PolicyEndpoint whose spec is the newest, and
// reports whether that changed the status. again is after which time it has to be called again at the latest; 0:
// not without a change. note is the text of an Event to write; empty: none.
func SetInForce(status *v1alpha1.EndpointStatus, generation int64, s inforce.State, times *InForceTimes, now time.Time) (changed bool, again time.Duration, note string) {
	condition := metav1.Condition{Type: v1alpha1.ConditionInForce, ObservedGeneration: generation}
	old := meta.FindStatusCondition(status.Conditions, condition.Type)
	same := old != nil && old.ObservedGeneration == generation
	wasTrue := same && old.Status == metav1.ConditionTrue
	if s.Total == s.InForce {
		times.Missing, times.Noted = time.Time{}, time.Time{}
		condition.Status, condition.Reason = metav1.ConditionTrue, v1alpha1.ReasonInForce
		condition.Message = fmt.Sprintf("In force on all %d nodes that have its pods", s.Total)
		if wait := progressEvery - now.Sub(times.Written); wasTrue && wait > 0 && old.Message != condition.Message {
			return false, wait, ""
		}
	} else {
		if times.Missing.IsZero() || !same && times.Missing.Before(s.Since) {
			times.Missing = now
		}
		missing := now.Sub(times.Missing)
		if wasTrue && missing < steadyFor {
			return false, steadyFor - missing, ""
		}
		condition.Status, condition.Reason = metav1.ConditionFalse, v1alpha1.ReasonNotOnAllNodes
		condition.Message = fmt.Sprintf("In force on %d of %d nodes that have its pods", s.InForce, s.Total)
		again = lateAfter
		switch {
		case missing < lateAfter:
		case s.Silent == s.Total:
			again = noteAfter
			condition.Reason = v1alpha1.ReasonNoAgent
			condition.Message += ": no agent has reported from these nodes, the first is " + s.Missing
		default:
			again = noteAfter
			condition.Message += "; not on node " + s.Missing
			if s.Reason != "" {
				condition.Message += fmt.Sprintf(" (%.64s)", s.Reason)
			}
		}
		if missing >= noteAfter && times.Noted.IsZero() {
			times.Noted, note = now, condition.Message
		}
		if wait := progressEvery - now.Sub(times.Written); same && !wasTrue && wait > 0 && old.Message != condition.Message {
			return false, wait, note
		}
	}
	changed = meta.SetStatusCondition(&status.Conditions, condition)
	if counts := (v1alpha1.NodeCounts{Total: int32(s.Total), InForce: int32(s.InForce)}); status.Nodes == nil || *status.Nodes != counts {
		status.Nodes, changed = &counts, true
	}
	if changed {
		times.Written = now
	}
	return changed, again, note
}
