package flows

import (
	"testing"
	"time"

	"github.com/go-logr/logr/testr"

	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observer/sqlite"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// fixture is an observer of nodes n1 and n2, without agents.
type fixture struct {
	*Flows
	t     *testing.T
	store *sqlite.Store
	next  uint64
}

func newFixture(t *testing.T, limits store.Limits) *fixture {
	t.Helper()
	s, err := sqlite.Open(t.TempDir(), limits, testr.New(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &fixture{t: t, store: s, Flows: New(Options{
		Store: s, Nodes: func() []string { return []string{"n1", "n2"} }, Agents: func() []ingest.Agent { return nil }, CertificateExpires: func() time.Time { return time.Time{} },
	})}
}

func large() store.Limits {
	return store.Limits{Age: 100 * time.Hour, ExactAge: 100 * time.Hour, Bytes: 1 << 30, Addresses: 100}
}

// push stores what a node pushes at a time.
func (f *fixture) push(node string, received time.Time, reports ...store.Report) {
	f.t.Helper()
	f.next++
	if err := f.store.Put(f.t.Context(), []store.Batch{{Node: node, Generation: "g", Sequence: f.next, Received: received, Reports: reports}}); err != nil {
		f.t.Fatal(err)
	}
}

// report is what the node of one end reports about n connections from web to db.
func report(direction store.Direction, first, last time.Time, n uint64) store.Report {
	return store.Report{
		First: first, Last: last, Direction: direction, Protocol: "TCP", Port: 5432, Connections: n,
		Source:      &observerapi.End{Namespace: "shop", Pod: "web-0", UID: "web", Node: "n1"},
		Destination: &observerapi.End{Namespace: "shop", Pod: "db-0", UID: "db", Node: "n2"},
		Decision:    &observerapi.Decision{Verdict: observerapi.Allowed, Reason: "default-allow"},
	}
}

// A time that is asked for in two parts has the same flows as the whole: none is in both, or is cut into two of one side.
func TestPartsOfATime(t *testing.T) {
	f := newFixture(t, large())
	noon := time.Now().Add(-time.Hour).Truncate(time.Minute)
	at := func(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }
	f.push("n1", at(60), report(store.Egress, at(-40), at(-40), 1), report(store.Egress, at(-3), at(-1), 2), report(store.Egress, at(-8), at(2), 4), report(store.Egress, at(30), at(30), 8))
	f.push("n2", at(60), report(store.Ingress, at(-40), at(-40), 1), report(store.Ingress, at(11), at(13), 2), report(store.Ingress, at(-8), at(2), 4), report(store.Ingress, at(30), at(30), 8))
	for _, newest := range []bool{true, false} {
		read := func(since, until time.Time) (n uint64) {
			if _, err := f.Scan(t.Context(), access.Everything(), Query{Since: since, Until: until, Newest: newest}, func(flow *observerapi.Flow) bool {
				if flow.Sides != observerapi.Complete || flow.Last.Before(since) || !flow.Last.Before(until) {
					t.Errorf("since %s until %s: %+v", since, until, flow)
				}
				n += flow.Connections
				return true
			}); err != nil {
				t.Fatal(err)
			}
			return n
		}
		whole, before, after := read(at(-600), at(600)), read(at(-600), noon), read(noon, at(600))
		if whole != 15 || before+after != whole {
			t.Errorf("%d connections, before noon %d and after it %d, want 15 in all", whole, before, after)
		}
	}
}

// An observer is complete since the oldest push that it still has. Flows of earlier times, which an agent pushed late, do not change that, and
// neither does a process that runs for longer than the store keeps flows.
func TestCompleteSince(t *testing.T) {
	hours := func(n int) time.Time { return time.Now().Add(time.Duration(n) * time.Hour) }
	for name, tc := range map[string]struct {
		limits store.Limits
		began  int // hours
		fill   func(f *fixture)
	}{
		"late records": {large(), -1, func(f *fixture) {
			f.push("n1", hours(-1), report(store.Egress, hours(-20), hours(-20), 1))
			f.push("n2", hours(-1), report(store.Ingress, hours(-1), hours(-1), 1))
		}},
		"old flows are deleted": {store.Limits{Age: 5 * time.Hour, ExactAge: 5 * time.Hour, Bytes: 1 << 30, Addresses: 100}, -4, func(f *fixture) {
			f.started = hours(-10)
			for _, h := range []int{-10, -8, -4, -2} {
				f.push("n1", hours(h), report(store.Egress, hours(h), hours(h), 1))
			}
			if err := f.store.Retain(f.t.Context(), time.Now()); err != nil {
				f.t.Fatal(err)
			}
		}},
		"nothing was pushed": {large(), 0, func(*fixture) {}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, tc.limits)
			tc.fill(f)
			c, err := f.Scan(t.Context(), access.Everything(), Query{Since: hours(-12)}, func(*observerapi.Flow) bool { return true })
			if away := c.CompleteSince.Sub(hours(tc.began)).Abs(); err != nil || away > time.Minute {
				t.Errorf("complete since %s, want %s: %v", c.CompleteSince, hours(tc.began), err)
			}
			if s, err := f.Status(t.Context()); err != nil || !s.CompleteSince.Equal(c.CompleteSince) {
				t.Errorf("%+v, %v", s, err)
			}
			if c, err = f.Scan(t.Context(), access.Everything(), Query{Since: time.Now()}, func(*observerapi.Flow) bool { return true }); err != nil || tc.began < 0 && !c.CompleteSince.IsZero() {
				t.Errorf("since now: %+v, %v", c, err)
			}
		})
	}
}
