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
	sums, err := in.sums(ctx, since)
	if err != nil {
		return nil, err
	}
	known := in.known
	var numbers []int
	for number := range sums {
		if sums[number].records > 0 {
			numbers = append(numbers, number)
		}
	}
	slices.SortFunc(numbers, func(i, j int) int {
		a, b := &known.flows[i], &known.flows[j]
		return cmp.Or(strings.Compare(known.texts[a.Source], known.texts[b.Source]), strings.Compare(known.texts[a.Destination], known.texts[b.Destination]),
			strings.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port), strings.Compare(string(a.Verdict), string(b.Verdict)), compareBools(a.Reply, b.Reply))
	})
	out := make([]Traffic, 0, len(numbers))
	for _, number := range numbers {
		f := &known.flows[number]
		out = append(out, Traffic{Source: &known.ends[f.Source], Destination: &known.ends[f.Destination], Protocol: f.Protocol, Port: f.Port,
			Verdict: f.Verdict, Reply: f.Reply, Count: sums[number].count()})
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
