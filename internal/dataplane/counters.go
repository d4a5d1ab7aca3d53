package dataplane

import (
	"fmt"

	"github.com/kidoban/kidoban/internal/dataplane/bpf"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/policy"
)

// Counter is the number of times that a direction of a packet was judged so, since the generation was made.
type Counter struct {
	Direction policy.Direction
	Verdict   events.Verdict
	Reason    events.Reason
	Packets   uint64
}

// Counters are summed over all CPUs.
type Counters struct {
	// Judged has every combination of direction, verdict and reason, also those that are 0.
	Judged []Counter
	// LostEvents did not fit in the ring. Their packets are among Repeats.
	LostEvents uint64
	// UnlistedPackets should be in an event or among Repeats and are in neither: there was no room for
	// another key.
	UnlistedPackets uint64
	// UnattributedHits are judged packets that RuleHits has no room for.
	UnattributedHits uint64
	// UnrecordedPackets should be in a record and are not: there was no room for another key.
	UnrecordedPackets uint64
	// Names are about DNS names.
	Names NameCounters
}

// NameCounters count what the program learns from resolvers' answers.
type NameCounters struct {
	// Learned are addresses that were learned or prolonged, Unlearnable those that are never learned, Displaced those that lost their place to a
	// newer one of the same name or pattern, and NoRoom those for which a map has none.
	Learned, Unlearnable, Displaced, NoRoom uint64
	// Answers by what became of them.
	Answers map[AnswerResult]uint64
}

// AnswerResult is what became of a resolver's answer.
type AnswerResult string

// AnswerSharedInterface is of an answer that came by an interface that several pods may be behind, such as a bridge's.
const AnswerSharedInterface AnswerResult = "shared-interface"

// answerResults are those of enum answer, in its order.
var answerResults = [...]AnswerResult{
	"learned", "unwanted", "empty", "truncated", "malformed", "too-long", "unasked", "forged", AnswerSharedInterface, "untrusted", "out-of-order", "busy",
}

// verdictCounters are the counters of verdicts. The others of bpf/report.h come after them.
const verdictCounters = len(policy.Directions) * events.Verdicts * events.Reasons

// Counters reads the counters.
func (d *Dataplane) Counters() (Counters, error) {
	var out Counters
	for _, direction := range policy.Directions {
		for v := range events.Verdicts {
			for r := range events.Reasons {
				n, err := d.counter((int(direction)*events.Verdicts+v)*events.Reasons + r)
				if err != nil {
					return Counters{}, err
				}
				out.Judged = append(out.Judged, Counter{Direction: direction, Verdict: events.Verdict(v), Reason: events.Reason(r), Packets: n})
			}
		}
	}
	index := verdictCounters
	for _, n := range []*uint64{
		&out.LostEvents, &out.UnlistedPackets, &out.UnattributedHits, &out.UnrecordedPackets,
		&out.Names.Learned, &out.Names.Unlearnable, &out.Names.Displaced, &out.Names.NoRoom,
	} {
		var err error
		if *n, err = d.counter(index); err != nil {
			return Counters{}, err
		}
		index++
	}
	out.Names.Answers = map[AnswerResult]uint64{}
	for _, result := range answerResults {
		n, err := d.counter(index)
		if err != nil {
			return Counters{}, err
		}
		out.Names.Answers[result] = n
		index++
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

// UnrecordedPackets is Counters.UnrecordedPackets alone.
func (d *Dataplane) UnrecordedPackets() (uint64, error) { return d.counter(verdictCounters + 3) }
