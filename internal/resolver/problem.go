package resolver

import (
	"cmp"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Problem is something that a policy says and that cannot be honoured.
type Problem struct {
	// Reason is one of the reasons of v1alpha1.ConditionResolved.
	Reason string
	// Message begins with the path of the field in the policy.
	Message string
}

// gravity orders reasons: first those that keep the whole policy from being honoured.
var gravity = []string{
	v1alpha1.ReasonTooLarge,
	v1alpha1.ReasonInvalidSelector,
	v1alpha1.ReasonInvalidPeer,
	v1alpha1.ReasonInvalidPort,
	v1alpha1.ReasonUnresolvedNamedPort,
}

// sortProblems puts the gravest first and leaves out what is said twice.
func sortProblems(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Compare(slices.Index(gravity, a.Reason), slices.Index(gravity, b.Reason))
	})
	var out []Problem
	for _, p := range problems {
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
