package replay

import (
	"context"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Options of Run.
type Options struct {
	Cluster
	// Before are the policies of today, and After those that are to take their place.
	Before, After Policies
	// Since leaves out flows that ended before it, if it is not zero.
	Since time.Time
}

// The sets that Run asks about.
const (
	setBefore = iota
	setAfter
	setAudited // After, as if no policy were audited
)

// Run judges all flows of a recording before and after a change of policies.
func Run(ctx context.Context, in *Recording, o Options) (*Report, error) {
	sets := []Policies{o.Before, o.After}
	if o.After.HasAudited() {
		enforced := o.After
		enforced.EnforceAudited = true
		sets = append(sets, enforced)
	}
	sums, err := in.sums(ctx, o.Since)
	if err != nil {
		return nil, err
	}
	judge := NewJudge(o.Cluster, sets...)
	ends := make([]*end, len(in.known.ends))
	endAt := func(number int) *end {
		if ends[number] == nil {
			ends[number] = judge.newEnd(in.known.ends[number])
		}
		return ends[number]
	}
	all := newTally()
	for number := range sums {
		if sums[number].records == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		f := &in.known.flows[number]
		all.count(judge, &record{source: endAt(f.Source), destination: endAt(f.Destination), protocol: f.Protocol, port: f.Port, reply: f.Reply, Count: sums[number].count()})
	}
	out := &Report{Coverage: in.Coverage, Hidden: in.Hidden}
	if o.Since.After(out.Coverage.Since) {
		out.Coverage = CoverageSince(out.Coverage, o.Since)
	}
	out.Complete = IsComplete(out.Coverage)
	all.fill(out)
	return out, nil
}

// record is all records of a flow together.
type record struct {
	source, destination *end
	protocol            string
	port                uint16
	reply               bool
	Count
}

// count the records of a flow.
func (t *tally) count(j *Judge, r *record) {
	if r.reply {
		t.replies.Add(&r.Count)
		return
	}
	t.judged.Add(&r.Count)
	if j.unaffected(r.source, r.destination) {
		t.unchanged.Add(&r.Count)
		return
	}
	is := j.decide(r.source, r.destination, r.protocol, r.port)
	before, after := is.Answers[setBefore], is.Answers[setAfter]
	switch {
	case is.Same[setAfter] || before.Verdict == after.Verdict && before.Verdict != Unknown:
		t.unchanged.Add(&r.Count)
	case before.Verdict == Unknown:
		t.undecided(r, Reason(before.Why))
	case after.Verdict == Unknown:
		t.undecided(r, Reason(after.Why))
	default:
		t.change(r, before, after, false)
	}
	if len(is.Answers) <= setAudited || after.Verdict == Unknown {
		return
	}
	switch audited := is.Answers[setAudited]; audited.Verdict {
	case after.Verdict:
	case Unknown:
		t.auditedUnknown.Add(&r.Count)
	default:
		t.change(r, after, audited, true)
	}
}

// CoverageSince is the part of a coverage from a time on.
func CoverageSince(c observerapi.Coverage, since time.Time) observerapi.Coverage {
	out := c
	out.Since, out.Losses = since, nil
	if !c.CompleteSince.After(since) {
		out.CompleteSince = time.Time{}
	}
	for _, l := range c.Losses {
		if !l.Last.Before(since) {
			out.Losses = append(out.Losses, l)
		}
	}
	return out
}

// IsComplete reports whether nothing is missing in a span of time.
func IsComplete(c observerapi.Coverage) bool {
	return len(c.Losses) == 0 && !c.Truncated && !c.CompleteSince.After(c.Since)
}
