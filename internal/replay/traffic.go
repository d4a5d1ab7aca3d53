package replay

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// Traffic is all flows of a recording between two ends that were decided alike.
type Traffic struct {
	Source, Destination *observerapi.End
	Protocol            string
	Port                uint16
	Verdict             observerapi.Verdict
	Reply               bool
	Count
}

// Flow of the traffic, to be judged.
func (t *Traffic) Flow() *observerapi.Flow {
	return &observerapi.Flow{Source: *t.Source, Destination: *t.Destination, Protocol: t.Protocol, Port: t.Port, Verdict: t.Verdict, Reply: t.Reply}
}

// Distinct sums up the flows of a recording that did not end before a time. Its order depends on the flows alone.
func Distinct(ctx context.Context, in *Recording, since time.Time) ([]Traffic, error) {
	type near struct { // in one worker, where each end is in memory once
		source, destination *end
		protocol            string
		port                uint16
		verdict             observerapi.Verdict
		reply               bool
	}
	type far struct {
		source, destination, protocol string
		port                          uint16
		verdict                       observerapi.Verdict
		reply                         bool
	}
	var workers []map[near]*Count
	err := in.each(ctx, newComparison(Cluster{}, Policies{}), func(*Judge) func(*record) {
		counts := map[near]*Count{}
		workers = append(workers, counts)
		return func(r *record) {
			if r.last.Before(since) {
				return
			}
			k := near{r.source, r.destination, r.protocol, r.port, r.verdict, r.reply}
			c := counts[k]
			if c == nil {
				c = &Count{}
				counts[k] = c
			}
			c.add(r)
		}
	})
	if err != nil {
		return nil, err
	}
	all := map[far]*Traffic{}
	for _, counts := range workers {
		for k, c := range counts {
			key := far{k.source.text, k.destination.text, k.protocol, k.port, k.verdict, k.reply}
			t := all[key]
			if t == nil {
				t = &Traffic{Source: &k.source.End, Destination: &k.destination.End, Protocol: k.protocol, Port: k.port, Verdict: k.verdict, Reply: k.reply}
				all[key] = t
			}
			t.Add(c)
		}
	}
	type keyed struct {
		far
		*Traffic
	}
	var list []keyed
	for k, t := range all {
		list = append(list, keyed{k, t})
	}
	slices.SortFunc(list, func(a, b keyed) int {
		return cmp.Or(strings.Compare(a.source, b.source), strings.Compare(a.destination, b.destination), strings.Compare(a.far.protocol, b.far.protocol),
			cmp.Compare(a.far.port, b.far.port), strings.Compare(string(a.far.verdict), string(b.far.verdict)), compareBools(a.far.reply, b.far.reply))
	})
	out := make([]Traffic, 0, len(list))
	for _, k := range list {
		out = append(out, *k.Traffic)
	}
	return out, nil
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
