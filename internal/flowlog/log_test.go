package flowlog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/dataplane/events"
	"github.com/kidoban/kidoban/internal/sink"
)

func TestALogWritesToEverySinkAndKeepsWhatIsRecent(t *testing.T) {
	dir := t.TempDir()
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	l := New(Options{
		Node: "node", Source: source{}, Interval: time.Hour, Directory: directory{}, Format: JSON, Log: logr.Discard(), Registry: prometheus.NewRegistry(),
		Sinks: []sink.Sink{named{sink.File(sink.FileOptions{Path: one}), "one"}, named{sink.File(sink.FileOptions{Path: two}), "two"}},
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := l.Start(ctx); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{one, two} {
		b, err := os.ReadFile(path)
		if err != nil || strings.Count(string(b), "\n") != 3 {
			t.Errorf("%q, %v", b, err)
		}
	}
	if recent, _ := l.Recent().From(0); len(recent) != 3 || recent[0].Source.Pod != "frontend-6d4b-x2x" {
		t.Errorf("recent: %+v", recent)
	}
}

// source has two events, and one repeat that is there at the end.
type source struct{}

func (source) Events(ctx context.Context, handle func(events.Event)) error {
	handle(samples["default-deny"])
	handle(samples["default-deny"])
	<-ctx.Done()
	return nil
}

func (source) Repeats() ([]events.Event, error) {
	return []events.Event{samples["repeats"]}, nil
}

type named struct {
	sink.Sink
	name string
}

func (n named) Name() string { return n.name }

func numbered(i int) agentapi.Event { return agentapi.Event{Node: fmt.Sprint(i)} }

func TestRecentKeepsTheLatest(t *testing.T) {
	r := newRecent(3)
	if got, first := r.From(7); len(got) != 0 || first != 0 {
		t.Errorf("%v from %d", got, first)
	}
	for i := range 5 {
		r.add(numbered(i))
	}
	for from, want := range map[uint64]string{0: "2 3 4", 3: "3 4", 5: "", 9: ""} {
		got, first := r.From(from)
		var names []string
		for i, e := range got {
			names = append(names, e.Node)
			if e.Node != fmt.Sprint(first+uint64(i)) {
				t.Errorf("from %d: event %s has number %d", from, e.Node, first+uint64(i))
			}
		}
		if strings.Join(names, " ") != want {
			t.Errorf("from %d: %v, want %s", from, names, want)
		}
	}
}

func TestRecentWaits(t *testing.T) {
	r := newRecent(3)
	got := make(chan []agentapi.Event)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		events, first := r.Wait(ctx, 0)
		got <- events
		events, _ = r.Wait(ctx, first+1)
		got <- events
	}()
	r.add(numbered(0))
	if e := <-got; len(e) != 1 {
		t.Errorf("%v", e)
	}
	cancel()
	if e := <-got; len(e) != 0 {
		t.Errorf("after the end: %v", e)
	}
}
