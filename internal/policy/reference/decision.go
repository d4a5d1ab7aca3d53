package reference

import "github.com/kidoban/kidoban/internal/policy"

// Decision is what policies of type P decide about one direction of a flow.
type Decision[P any] struct {
	// Action is Allow or Deny.
	Action policy.Action
	// Tier that decided. It is TierBaseline if no policy decided and the pod is not isolated.
	Tier policy.Tier
	// Isolating are the NetworkPolicies that isolate the pod in this direction, in the order of evaluation.
	Isolating []*P
	// Policy that decided. It is nil for a default: Deny for an isolated pod, Allow for any other.
	Policy *P
	// Rule is the index of the rule of Policy that decided, in this direction.
	Rule int
}

// Allowed reports whether the action is Allow.
func (d Decision[P]) Allowed() bool { return d.Action == policy.Allow }
