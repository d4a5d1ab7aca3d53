package pairing

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Each connection is shown once, with both sides if the second report comes in time.
func TestLive(t *testing.T) {
	l := NewLive()
	now := begin
	var shown uint64
	expect := func(what string, flows []*observerapi.Flow, connections uint64, sides observerapi.Sides) {
		t.Helper()
		var got uint64
		for _, f := range flows {
			got += f.Connections
			if f.Sides != sides {
				t.Errorf("%s: %+v", what, f)
			}
		}
		shown += got
		if got != connections {
			t.Errorf("%s: %d connections, want %d", what, got, connections)
		}
	}
	expect("first side", l.Add([]store.Report{report(0, store.Egress, web, db, 80, allowed, 10)}, now), 0, "")
	expect("part of the second", l.Add([]store.Report{report(0, store.Ingress, web, db, 80, allowed, 4)}, now), 4, observerapi.Complete)
	expect("too early", l.Tick(now.Add(patience)), 0, "")
	expect("one side", l.Tick(now.Add(patience+time.Second)), 6, observerapi.OneSide)
	expect("the second, late", l.Add([]store.Report{report(time.Second, store.Ingress, web, db, 80, denied, 6)}, now.Add(time.Minute)), 0, "")
	expect("one more", l.Add([]store.Report{report(time.Second, store.Ingress, web, db, 80, denied, 1)}, now.Add(time.Minute)), 0, "")
	expect("denied by the source", l.Add([]store.Report{report(time.Second, store.Egress, web, db, 80, denied, 5)}, now.Add(time.Minute)), 5, observerapi.Complete)
	expect("the end", l.Tick(now.Add(time.Hour)), 1, observerapi.OneSide)
	l.Tick(now.Add(2 * time.Hour))
	if shown != 16 || len(l.waiting) != 0 || l.size != 0 {
		t.Errorf("%d connections, %d kinds and %d parts wait", shown, len(l.waiting), l.size)
	}
}

// What waits is bounded.
func TestLiveIsBounded(t *testing.T) {
	l := NewLive()
	var shown uint64
	for i := range 3 * maxLive / 2000 {
		var reports []store.Report
		for port := range 1000 {
			r := report(time.Duration(i)*time.Millisecond, store.Egress, web, db, uint16(port), allowed, 1)
			reports = append(reports, r)
		}
		for _, f := range l.Add(reports, begin.Add(time.Duration(i)*time.Millisecond)) {
			shown += f.Connections
		}
	}
	for _, f := range l.Tick(begin.Add(time.Hour)) {
		shown += f.Connections
	}
	if shown != 3*maxLive/2 || l.size > maxLive {
		t.Errorf("%d connections are shown, %d wait", shown, l.size)
	}
}
