//go:build postgres

package postgres_test

import (
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observer/store/storetest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

func TestStore(t *testing.T) {
	s := newServer(t)
	storetest.Run(t, func(t *testing.T) storetest.Place { return database(s.database(t)) })
}

// A batch that PostgreSQL cannot store as it is would be pushed again for ever.
func TestTextsThatPostgreSQLCannotStore(t *testing.T) {
	s := database(newServer(t).database(t)).Open(t, storetest.Large)
	const bad = "a\x00\xff"
	b := storetest.NewWorld(13, 1, 1, 1).Batches(begin, time.Minute, 1, 5)[0]
	b.Node, b.Generation = bad, bad
	b.Losses = []observerapi.Loss{{Node: bad, Reason: bad, First: begin, Last: begin, Packets: 1<<64 - 1, Records: 1}}
	end := *b.Reports[0].Source
	end.Namespace, end.Pod = bad, bad
	b.Reports[0].Source, b.Reports[0].Service, b.Reports[0].Protocol = &end, bad, bad
	b.Reports[0].Connections, b.Reports[1].Connections = 1<<64-1, 1<<64-1
	for range 2 {
		if err := s.Put(t.Context(), []store.Batch{b}); err != nil {
			t.Fatal(err)
		}
	}
	if got := scanned(t, s); got.reports != 5 {
		t.Errorf("%d reports", got.reports)
	}
	if err := s.Retain(t.Context(), begin.Add(2*time.Hour)); err != nil {
		t.Error(err)
	}
	_ = summedUp(t, s)
	if losses, err := s.Losses(t.Context(), begin.Add(-time.Minute), begin.Add(time.Minute)); err != nil || len(losses) != 1 {
		t.Errorf("%v, %v", losses, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
