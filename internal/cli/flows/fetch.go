package flows

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// answerLimit is the most flows that an observer answers with.
	answerLimit = 50_000
	// shortest is the shortest time that is asked for: the resolution of an observer.
	shortest = 10 * time.Second
)

// Getter gets an answer of an observer.
type Getter func(ctx context.Context, path string, query url.Values, into any) error

// fetch all flows of a time, in as many answers as it takes. Where an answer is full, each half of its time is asked for.
func fetch(ctx context.Context, get Getter, limit int, since, until time.Time, write func(*observerapi.Flow) error) (coverage observerapi.Coverage, hidden []string, err error) {
	all := &fetched{get: get, limit: limit, write: write, hidden: map[string]bool{}, losses: map[observerapi.Loss]bool{}}
	if err := all.fetch(ctx, since, until); err != nil {
		return coverage, nil, err
	}
	coverage = all.coverage
	coverage.Since, coverage.Until = since, until
	coverage.Losses = slices.SortedFunc(maps.Keys(all.losses), func(a, b observerapi.Loss) int {
		return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason), a.Last.Compare(b.Last))
	})
	return coverage, slices.Sorted(maps.Keys(all.hidden)), nil
}

type fetched struct {
	get      Getter
	limit    int
	write    func(*observerapi.Flow) error
	coverage observerapi.Coverage
	hidden   map[string]bool
	losses   map[observerapi.Loss]bool
}

// fetch a part of the time. A flow belongs to the part with its last connection, also if it began before.
func (f *fetched) fetch(ctx context.Context, since, until time.Time) error {
	var list observerapi.FlowList
	query := url.Values{"since": {since.UTC().Format(time.RFC3339)}, "until": {until.UTC().Format(time.RFC3339)}, "limit": {strconv.Itoa(f.limit)}}
	if err := f.get(ctx, observerapi.PathFlows, query, &list); err != nil {
		return err
	}
	if list.Coverage.LeftOut(len(list.Flows), f.limit) {
		half := since.Add(until.Sub(since) / 2).Truncate(shortest)
		if !half.After(since) {
			return fmt.Errorf("there are more than %d flows within %s from %s on, more than an observer answers with", f.limit, until.Sub(since), Time(since))
		}
		if err := f.fetch(ctx, since, half); err != nil {
			return err
		}
		return f.fetch(ctx, half, until)
	}
	if list.Coverage.CompleteSince.After(f.coverage.CompleteSince) {
		f.coverage.CompleteSince = list.Coverage.CompleteSince
	}
	f.coverage.Resolution = max(f.coverage.Resolution, list.Coverage.Resolution)
	for _, l := range list.Coverage.Losses {
		f.losses[l] = true
	}
	for _, ns := range list.Hidden {
		f.hidden[ns] = true
	}
	for i := range list.Flows {
		if err := f.write(&list.Flows[i]); err != nil {
			return err
		}
	}
	return nil
}
