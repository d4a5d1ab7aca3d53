package dataplane

import (
	"fmt"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/policy"
)

// Verdict is what happened to a packet.
type Verdict uint8

// The verdicts.
const (
	Accept    = Verdict(bpf.FilterVerdictVERDICT_ACCEPT)
	Deny      = Verdict(bpf.FilterVerdictVERDICT_DENY)
	AuditDeny = Verdict(bpf.FilterVerdictVERDICT_AUDIT) // would have been denied, passed

	verdicts = int(bpf.FilterVerdictVERDICTS)
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

	reasons = int(bpf.FilterReasonREASONS)
)

func (r Reason) String() string {
	return [...]string{"Rule", "Default", "Unparsable", "Invalid", "Revoked", "Spoofed", "Unknown"}[r]
}

// Counter is the number of times that a direction of a packet was judged so, since the generation was made.
type Counter struct {
	Direction policy.Direction
	Verdict   Verdict
	Reason    Reason
	Packets   uint64
}

// Counters are summed over all CPUs.
type Counters struct {
	// Judged has every combination of direction, verdict and reason, also those that are 0.
	Judged []Counter
	// LostEvents did not fit in the ring. Their packets are among Repeats.
	LostEvents uint64
	// UnlistedPackets should be in an event or among Repeats and are in neither: there was no room for another key.
	UnlistedPackets uint64
	// UnattributedHits are judged packets that RuleHits has no room for.
	UnattributedHits uint64
}

// Counters reads the counters.
func (d *Dataplane) Counters() (Counters, error) {
	var out Counters
	for _, direction := range policy.Directions {
		for v := range verdicts {
			for r := range reasons {
				n, err := d.counter((int(direction)*verdicts+v)*reasons + r)
				if err != nil {
					return Counters{}, err
				}
				out.Judged = append(out.Judged, Counter{Direction: direction, Verdict: Verdict(v), Reason: Reason(r), Packets: n})
			}
		}
	}
	for i, n := range []*uint64{&out.LostEvents, &out.UnlistedPackets, &out.UnattributedHits} {
		var err error
		if *n, err = d.counter(len(policy.Directions)*verdicts*reasons + i); err != nil {
			return Counters{}, err
		}
	}
	return out, nil
}

func (d *Dataplane) counter(index int) (uint64, error) {
	var perCPU []uint64
	if err := d.objs.Counters.Lookup(uint32(index), &perCPU); err != nil {
		return 0, fmt.Errorf("read BPF map %s: %w", bpf.FilterMapCounters, err)
	}
	sum := uint64(0)
	for _, n := range perCPU {
		sum += n
	}
	return sum, nil
}
