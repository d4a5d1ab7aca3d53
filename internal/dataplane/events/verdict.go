package events

import (
	"fmt"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
)

// Verdict is what became of a packet: enum verdict of bpf/report.h. Its names are values of a label of
// metrics.
type Verdict uint8

// The verdicts.
const (
	Allow     = Verdict(bpf.FilterVerdictVERDICT_ALLOW)
	Deny      = Verdict(bpf.FilterVerdictVERDICT_DENY)
	AuditDeny = Verdict(bpf.FilterVerdictVERDICT_AUDIT) // would have been denied, and was not
	// AuditAllow would have been allowed if audited policies were enforced, and was not.
	AuditAllow = Verdict(bpf.FilterVerdictVERDICT_AUDIT_ALLOW)

	// Verdicts is their number.
	Verdicts = int(bpf.FilterVerdictVERDICTS)
)

var verdictNames = [Verdicts]string{Allow: "Allow", Deny: "Deny", AuditDeny: "AuditDeny", AuditAllow: "AuditAllow"}

func (v Verdict) String() string { return nameOf(verdictNames[:], v) }

// Reason is why a packet got its verdict: enum reason of bpf/report.h. Its names are values of a label of
// metrics.
type Reason uint8

// The reasons.
const (
	ReasonRule       = Reason(bpf.FilterReasonREASON_RULE)       // a rule of a policy decided
	ReasonDefault    = Reason(bpf.FilterReasonREASON_DEFAULT)    // no rule matches and the pod is isolated
	ReasonUnparsable = Reason(bpf.FilterReasonREASON_UNPARSABLE) // the packet cannot be read and one end is isolated
	ReasonInvalid    = Reason(bpf.FilterReasonREASON_INVALID)    // no honest packet looks like this
	ReasonRevoked    = Reason(bpf.FilterReasonREASON_REVOKED)    // belongs to a flow that was cut
	ReasonSpoofed    = Reason(bpf.FilterReasonREASON_SPOOFED)    // comes out of a pod's own interface with an address of another pod
	ReasonUnknown    = Reason(bpf.FilterReasonREASON_UNKNOWN)    // an address behind a workload's interface that belongs to no known pod
	// ReasonEncapsulated is a tunnel's packet from an address that is not an end of a tunnel.
	ReasonEncapsulated = Reason(bpf.FilterReasonREASON_ENCAPSULATED)

	// Reasons is their number.
	Reasons = int(bpf.FilterReasonREASONS)
)

var reasonNames = [Reasons]string{
	ReasonRule: "Rule", ReasonDefault: "Default", ReasonUnparsable: "Unparsable", ReasonInvalid: "Invalid",
	ReasonRevoked: "Revoked", ReasonSpoofed: "Spoofed", ReasonUnknown: "Unknown",
	ReasonEncapsulated: "Encapsulated",
}

func (r Reason) String() string { return nameOf(reasonNames[:], r) }

func nameOf[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprint(uint8(v))
}
