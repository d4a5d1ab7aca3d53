package store

import (
	"cmp"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// lossGap is the time without losses that separates two of one node and reason.
const lossGap = time.Minute

// MergeLosses returns losses by node, reason and time, those of one node and reason that follow each other as one.
func MergeLosses(losses []observerapi.Loss) []observerapi.Loss {
	losses = slices.Clone(losses)
	slices.SortFunc(losses, func(a, b observerapi.Loss) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason), a.First.Compare(b.First), a.Last.Compare(b.Last))
	})
	var out []observerapi.Loss
	for _, l := range losses {
		if n := len(out); n > 0 {
			before := &out[n-1]
			if before.Node == l.Node && before.Reason == l.Reason && l.First.Sub(before.Last) <= lossGap {
				before.Last = later(before.Last, l.Last)
				before.Packets += l.Packets
				before.Records += l.Records
				continue
			}
		}
		out = append(out, l)
	}
	return out
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
