package resolver

import (
	"cmp"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// Problem is a part of a policy that cannot be enforced.
type Problem struct {
	// Reason is one of the reasons of v1alpha1.ConditionResolved.
	Reason string
	// Message begins with the path of the policy's field.
	Message string
}

// gravity orders reasons: those first that concern the whole policy.
var gravity = []string{
	v1alpha1.ReasonTooLarge,
	v1alpha1.ReasonOverBudget,
	v1alpha1.ReasonInvalidSelector,
	v1alpha1.ReasonUnsupportedDomainNames,
	v1alpha1.ReasonInvalidPeer,
	v1alpha1.ReasonNoTrustedResolver,
	v1alpha1.ReasonInvalidDomainName,
	v1alpha1.ReasonInvalidPort,
	v1alpha1.ReasonUnresolvedNamedPort,
	v1alpha1.ReasonInvalidEnforcement,
}

// maxProblems is how many problems of a policy are kept. A status has room for about ten.
const maxProblems = 100

// sortProblems sorts problems by gravity, removes duplicates, and keeps the first maxProblems.
func sortProblems(problems []Problem) []Problem {
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Compare(slices.Index(gravity, a.Reason), slices.Index(gravity, b.Reason))
	})
	var out []Problem
	for _, p := range problems {
		if len(out) < maxProblems && !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}
