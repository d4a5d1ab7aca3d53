package node

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/policy"
)

// PolicyReport is which version of a PolicyEndpoint or a ClusterPolicyEndpoint is in force in the kernel.
type PolicyReport struct {
	UID types.UID
	// Generation of the PolicyEndpoint that is in force; 0: no version is. Of a report that is Pending it is the one that comes next.
	Generation int64
	// Pending: the compiler has the version, and the kernel does not have it yet.
	Pending bool
	// Reason why the newest version is not in force; empty if it is.
	Reason string
}

// Reasons of a PolicyReport.
const (
	ReasonWaitingForGroups = "WaitingForGroups"
	ReasonUnreadable       = "Unreadable"
	ReasonOverBudget       = "OverBudget"
	ReasonNotWritten       = "NotWritten"
)

// PolicyReports returns the report of each PolicyEndpoint and ClusterPolicyEndpoint that selects a pod of this node, by its name.
func (n *Node) PolicyReports() map[types.NamespacedName]PolicyReport {
	overBudget := map[policy.ID]bool{}
	for _, p := range n.Problems() {
		overBudget[p.Policy] = true
	}
	out := map[types.NamespacedName]PolicyReport{}
	for key, p := range n.pods {
		if !n.synced(key.Namespace) {
			continue
		}
		for _, e := range p.endpoints {
			name := types.NamespacedName{Namespace: e.active.object.Namespace, Name: e.active.object.Name}
			if _, ok := out[name]; !ok && e.phase != Retained {
				out[name] = e.report(overBudget[e.active.policy.ID])
			}
		}
	}
	for name := range n.waiting {
		if e := n.policies[name]; e.active == nil && n.selectsPod(e.waiting) {
			out[name] = PolicyReport{UID: e.waiting.object.UID, Reason: ReasonWaitingForGroups}
		}
	}
	return out
}

// report is for an endpoint of which the compiler has a version.
func (e *endpoint) report(overBudget bool) PolicyReport {
	r := PolicyReport{UID: e.active.object.UID}
	switch e.phase {
	case InForce, InForceAndWaiting:
		r.Generation = e.active.object.Generation
		switch {
		case overBudget:
			r.Generation, r.Reason = 0, ReasonOverBudget
		case e.active.inForce.IsZero():
			r.Pending, r.Reason = true, ReasonNotWritten
		case e.phase == InForceAndWaiting:
			r.Reason = ReasonWaitingForGroups
		}
	case IsolatedUnreadable, IsolatedUnreadableAndWaiting:
		r.Reason = ReasonUnreadable
	case IsolatedLate, Waiting, Unknown, Retained, phases:
		r.Reason = ReasonWaitingForGroups
	}
	return r
}

func (n *Node) selectsPod(v *version) bool {
	for key, p := range n.pods {
		if n.selects(v, key, p.labels) {
			return true
		}
	}
	return false
}
