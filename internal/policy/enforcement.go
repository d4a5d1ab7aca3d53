package policy

import (
	"fmt"
	"slices"

	"github.com/kidoban/kidoban/api/v1alpha1"
)

// IsLabelledAudit reports whether a policy with these labels is audited: it isolates no pod and denies nothing.
func IsLabelledAudit(labels map[string]string) bool {
	return labels[v1alpha1.LabelEnforcement] == v1alpha1.LabelledAudit
}

// CheckEnforcement returns an error if a policy has v1alpha1.LabelEnforcement with a value that means nothing. The policy is enforced then.
func CheckEnforcement(labels map[string]string) error {
	switch value, ok := labels[v1alpha1.LabelEnforcement]; {
	case !ok || value == v1alpha1.LabelledAudit || value == v1alpha1.LabelledEnforce:
		return nil
	default:
		return fmt.Errorf("metadata.labels[%s]: %q is neither %s nor %s; the policy is enforced",
			v1alpha1.LabelEnforcement, value, v1alpha1.LabelledAudit, v1alpha1.LabelledEnforce)
	}
}

// Enforced returns those of a pod's policies that are not audited, in their order.
func Enforced(policies []*Policy) []*Policy {
	isAudited := func(p *Policy) bool { return p.Audited }
	if !slices.ContainsFunc(policies, isAudited) {
		return policies
	}
	return slices.DeleteFunc(slices.Clone(policies), isAudited)
}

// IsAudited reports whether an audited policy among those of a pod has a say in a direction.
func IsAudited(d Direction, policies []*Policy) bool {
	return slices.ContainsFunc(policies, func(p *Policy) bool { return p.Audited && p.Isolates[d] })
}
