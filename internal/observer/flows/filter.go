package flows

import (
	"slices"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Filter says which flows are asked for. It is applied to flows as the reader may see them, so that it reveals nothing.
type Filter struct {
	// Namespace, Pod and Workload are those of one end, the same for all three. Workload and Pod need Namespace.
	Namespace, Pod, Workload string
	Verdict                  observerapi.Verdict
	Protocol                 string
	Port                     uint16
	// Policy that decided for one end, isolates it, or is audited there.
	Policy agentapi.PolicyRef
}

// query is what a store needs of the filter. It must not leave out a report that a flow needs, for its other end.
func (f *Filter) query() store.Query {
	// A policy decides at one end only: the other end's reports must be read, too.
	return store.Query{Namespace: f.Namespace, Workload: f.Workload}
}

// Match reports whether a flow is asked for.
func (f *Filter) Match(flow *observerapi.Flow) bool {
	if f.Verdict != "" && flow.Verdict != f.Verdict || f.Protocol != "" && flow.Protocol != f.Protocol || f.Port != 0 && flow.Port != f.Port {
		return false
	}
	if f.Namespace != "" && !f.isEnd(&flow.Source) && !f.isEnd(&flow.Destination) {
		return false
	}
	return f.Policy.Name == "" || f.decided(flow.Egress) || f.decided(flow.Ingress)
}

func (f *Filter) isEnd(e *observerapi.End) bool {
	return e.Namespace == f.Namespace && (f.Pod == "" || e.Pod == f.Pod) && (f.Workload == "" || e.Workload != nil && e.Workload.Name == f.Workload)
}

func (f *Filter) decided(d *observerapi.Decision) bool {
	return d != nil && (d.Policy != nil && f.isPolicy(d.Policy.PolicyRef) || slices.ContainsFunc(d.IsolatedBy, f.isPolicy) || slices.ContainsFunc(d.AuditedBy, f.isPolicy))
}

// isPolicy compares with Policy, of which the kind may be empty.
func (f *Filter) isPolicy(r agentapi.PolicyRef) bool {
	return r.Name == f.Policy.Name && r.Namespace == f.Policy.Namespace && (f.Policy.Kind == "" || r.Kind == f.Policy.Kind)
}
