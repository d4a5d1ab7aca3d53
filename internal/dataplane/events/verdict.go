package events

import "github.com/kidoban/kidoban/internal/dataplane/bpf"

// Verdict is what happened to a packet.
type Verdict uint8

// The verdicts.
const (
	Allow     = Verdict(bpf.FilterVerdictVERDICT_ACCEPT)
	Deny      = Verdict(bpf.FilterVerdictVERDICT_DENY)
	AuditDeny = Verdict(bpf.FilterVerdictVERDICT_AUDIT) // would have been denied, passed

	// Verdicts is their number.
	Verdicts = int(bpf.FilterVerdictVERDICTS)
)

func (v Verdict) String() string {
	return [...]string{"Accept", "Deny", "AuditDeny"}[v]
}

// Reason is why a packet got its verdict.
type Reason uint8

// The reasons.
const (
	ReasonRule       = Reason(bpf.FilterReasonREASON_RULE)       // a rule of a policy
	ReasonDefault    = Reason(bpf.FilterReasonREASON_DEFAULT)    // no rule matches, the pod is isolated
	ReasonUnparsable = Reason(bpf.FilterReasonREASON_UNPARSABLE) // it cannot be read, and one end is isolated
	ReasonInvalid    = Reason(bpf.FilterReasonREASON_INVALID)    // no honest packet looks like this
	ReasonRevoked    = Reason(bpf.FilterReasonREASON_REVOKED)    // of a flow that was cut
	ReasonSpoofed    = Reason(bpf.FilterReasonREASON_SPOOFED)    // out of a pod's own interface with another's address
	ReasonUnknown    = Reason(bpf.FilterReasonREASON_UNKNOWN)    // nobody knows yet whose address is behind a workload's interface

	// Reasons is their number.
	Reasons = int(bpf.FilterReasonREASONS)
)

func (r Reason) String() string {
	return [...]string{"Rule", "Default", "Unparsable", "Invalid", "Revoked", "Spoofed", "Unknown"}[r]
}
