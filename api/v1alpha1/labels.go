package v1alpha1

const (
	// LabelManagedBy names the writer of an object. kidoban's controller changes only objects that carry its own value.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedByController is the value of LabelManagedBy on objects that kidoban's controller writes.
	ManagedByController = "kidoban-controller"

	// LabelEnforcement on a namespace puts its pods into audit mode or takes them out of it. On a policy it says whether the policy is
	// enforced. Any other value counts as none.
	LabelEnforcement = "kidoban.dev/enforcement"
	// LabelledAudit and LabelledEnforce are the values of LabelEnforcement.
	LabelledAudit   = "audit"
	LabelledEnforce = "enforce"

	// LabelPolicyKind and LabelPolicyUID identify the policy of a PolicyEndpoint. The policy's name is in spec.policyRef,
	// because it can be longer than a label's value may be.
	LabelPolicyKind = "networking.kidoban.dev/policy-kind"
	LabelPolicyUID  = "networking.kidoban.dev/policy-uid"
)
