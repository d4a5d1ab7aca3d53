package v1alpha1

const (
	// LabelManagedBy says who keeps an object right; kidoban's controller touches only those with its own value.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedByController is LabelManagedBy's value on what kidoban's controller writes.
	ManagedByController = "kidoban-controller"

	// LabelPolicyKind and LabelPolicyUID find the PolicyEndpoint of a policy. (A policy's name can be longer than a label's
	// value may be; it stands in spec.policyRef.)
	LabelPolicyKind = "networking.kidoban.dev/policy-kind"
	LabelPolicyUID  = "networking.kidoban.dev/policy-uid"

	// LabelGroup finds all slices of a group.
	LabelGroup = "networking.kidoban.dev/group"
)

const (
	// ConditionResolved is true when everything the policy says is in the PolicyEndpoint, and says what is not otherwise.
	ConditionResolved = "Resolved"

	// Reasons of ConditionResolved.
	ReasonResolved            = "Resolved"
	ReasonUnresolvedNamedPort = "UnresolvedNamedPort"
	ReasonInvalidSelector     = "InvalidSelector"
	ReasonInvalidPeer         = "InvalidPeer"
	ReasonInvalidPort         = "InvalidPort"
	ReasonTooLarge            = "TooLarge"
	ReasonRefused             = "Refused" // by the API server: a quota, an admission policy, a webhook, a schema
)
