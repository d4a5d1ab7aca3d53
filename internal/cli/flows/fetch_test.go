package flows

import (
	"context"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/replay"
)

var start = time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)

// fake answers as an observer does: with the flows whose last connection is in a time, and no more than the limit.
type fake struct {
	t       *testing.T
	flows   []observerapi.Flow
	answers int
	// most is how many flows it answers with at most, whatever the limit; 0: as many as the limit.
	most int
}

func (f *fake) get(_ context.Context, path string, query url.Values, into any) error {
	f.answers++
	limit, _ := strconv.Atoi(query.Get("limit"))
	since, err := time.Parse(time.RFC3339, query.Get("since"))
	if err != nil {
		f.t.Error(err)
	}
	until, err := time.Parse(time.RFC3339, query.Get("until"))
	if err != nil || path != observerapi.PathFlows {
		f.t.Error(path, err)
	}
	list := into.(*observerapi.FlowList)
	list.Hidden = []string{"bank"}
	list.Coverage = observerapi.Coverage{CompleteSince: start.Add(time.Minute), Resolution: 10, Losses: []observerapi.Loss{{Node: "n7", First: start, Last: start, Reason: "map"}}}
	for _, flow := range f.flows {
		if flow.Last.Before(since) || !flow.Last.Before(until) {
			continue
		}
		if f.most > 0 && len(list.Flows) == f.most {
			list.Coverage.Truncated = true
		} else if len(list.Flows) < limit {
			list.Flows = append(list.Flows, flow)
		}
	}
	return nil
}

// An answer that leaves out flows is asked for in parts, however short it is, so that what was fetched is complete.
func TestTruncatedAnswersAreAskedForInParts(t *testing.T) {
	f := &fake{t: t, most: 10}
	const all = 35
	for i := range all {
		first := start.Add(time.Duration(i) * time.Hour / all)
		f.flows = append(f.flows, observerapi.Flow{First: first, Last: first, Protocol: "TCP", Port: uint16(i), Verdict: observerapi.Allowed})
	}
	got := 0
	coverage, _, err := fetch(t.Context(), f.get, 1000, start, start.Add(time.Hour), func(*observerapi.Flow) error {
		got++
		return nil
	})
	if err != nil || got != all || coverage.Truncated {
		t.Errorf("%d of %d flows, %+v, %v", got, all, coverage, err)
	}
}

// A recording of an answer that leaves out flows is not complete.
func TestCoverageOfATruncatedAnswer(t *testing.T) {
	c := observerapi.Coverage{Since: start, Until: start.Add(time.Hour), Truncated: true, Losses: []observerapi.Loss{{Reason: "map"}}}
	got := strings.Join(Coverage(c, nil), "\n")
	for _, want := range []string{": incomplete", "leaves out flows", "some nodes lost an unknown number of connections"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	c.Losses = nil
	if replay.IsComplete(c) {
		t.Error("it counts as complete")
	}
}

func TestEachFlowIsRecordedOnce(t *testing.T) {
	f := &fake{t: t}
	const limit, all = 100, 207
	for i := range all {
		first := start.Add(time.Duration(i) * time.Hour / all)
		f.flows = append(f.flows, observerapi.Flow{First: first, Last: first.Add(15 * time.Second), Protocol: "TCP", Port: 443, Connections: 1,
			Source: observerapi.End{Address: netip.MustParseAddr("192.0.2.1")}, Verdict: observerapi.Allowed})
	}
	file := filepath.Join(t.TempDir(), "flows.jsonl")
	if err := writeRecording(t.Context(), f.get, limit, &replay.Objects{}, start, start.Add(time.Hour), file); err != nil {
		t.Fatal(err)
	}
	in, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = in.Close() }()
	r, err := replay.Open(in)
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := replay.Distinct(t.Context(), r, time.Time{})
	if err != nil || len(traffic) != 1 || traffic[0].Records != all {
		t.Errorf("%+v, want %d records: %v", traffic, all, err)
	}
	c := r.Coverage
	if f.answers < 3 || len(c.Losses) != 1 || !c.CompleteSince.Equal(start.Add(time.Minute)) || !c.Since.Equal(start) || r.Hidden[0] != "bank" || r.Objects == nil {
		t.Errorf("%d answers, %+v, hidden %v", f.answers, c, r.Hidden)
	}
}

func TestTooManyFlowsAtOnce(t *testing.T) {
	const limit = 100
	f := &fake{t: t, flows: make([]observerapi.Flow, limit)}
	for i := range f.flows {
		f.flows[i].First, f.flows[i].Last = start, start.Add(time.Second)
	}
	file := filepath.Join(t.TempDir(), "flows.jsonl")
	if err := writeRecording(t.Context(), f.get, limit, nil, start, start.Add(time.Hour), file); err == nil {
		t.Error("no error")
	}
	if left, _ := os.ReadDir(filepath.Dir(file)); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

func TestFlowsAreCollectedInMemory(t *testing.T) {
	const all, limit = 12_000, 5_000
	f := &fake{t: t}
	for i := range all {
		first := start.Add(time.Duration(i) * time.Hour / all)
		f.flows = append(f.flows, observerapi.Flow{First: first, Last: first, Protocol: "TCP", Port: uint16(i), Connections: 1, Verdict: observerapi.Allowed})
	}
	r, err := collect(t.Context(), f.get, limit, 2<<20, nil, start, start.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if traffic, err := replay.Distinct(t.Context(), r, time.Time{}); err != nil || len(traffic) != all || r.Hidden[0] != "bank" {
		t.Errorf("%d flows, %v, hidden %v", len(traffic), err, r.Hidden)
	}
	if _, err := collect(t.Context(), f.get, limit, 0, nil, start, start.Add(time.Hour)); err == nil {
		t.Error("more than there is room for are collected")
	}
}

func TestDurations(t *testing.T) {
	r := &replay.Recording{Coverage: observerapi.Coverage{Until: start}}
	for text, want := range map[string]time.Time{"": {}, "7d": start.Add(-168 * time.Hour), "90m": start.Add(-90 * time.Minute), "2026-11-20T09:00:00Z": start.Add(-time.Hour)} {
		if got, err := (&Source{since: text}).Since(r); err != nil || !got.Equal(want) {
			t.Errorf("--since %q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"-1h", "yesterday", "d", "1.5d"} {
		if _, err := (&Source{since: text}).Since(r); err == nil {
			t.Errorf("--since %q is read", text)
		}
	}
	if _, err := (&Source{since: "1h"}).Since(&replay.Recording{}); err == nil {
		t.Error("a duration before no time is read")
	}
}
