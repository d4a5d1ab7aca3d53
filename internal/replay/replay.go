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
	var all []*tally
	err := in.each(ctx, newComparison(o.Cluster, sets...), func(j *Judge) func(*record) {
		t := newTally()
		all = append(all, t)
		return func(r *record) {
			if !r.last.Before(o.Since) {
				t.count(j, r)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	sum := newTally()
	for _, t := range all {
		sum.plus(t)
	}
	out := &Report{Coverage: in.Coverage, Hidden: in.Hidden}
	if o.Since.After(out.Coverage.Since) {
		out.Coverage = CoverageSince(out.Coverage, o.Since)
	}
	out.Complete = IsComplete(out.Coverage)
	sum.fill(out)
	return out, nil
}

// count a record.
func (t *tally) count(j *Judge, r *record) {
	if r.reply {
		t.replies.add(r)
		return
	}
	t.judged.add(r)
	if j.unaffected(r.source, r.destination) {
		t.unchanged.add(r)
		return
	}
	is := j.decide(r.source, r.destination, r.protocol, r.port)
	before, after := is.Answers[setBefore], is.Answers[setAfter]
	switch {
	case is.Same[setAfter] || before.Verdict == after.Verdict && before.Verdict != Unknown:
		t.unchanged.add(r)
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
		t.auditedUnknown.add(r)
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
	return len(c.Losses) == 0 && !c.CompleteSince.After(c.Since)
}
