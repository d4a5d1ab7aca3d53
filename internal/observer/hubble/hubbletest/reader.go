// Package hubbletest has a hubble.Reader for tests.
package hubbletest

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kidoban/kidoban/internal/observer/hubble"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// Reader contains flows in memory. Its exported fields are set before it is used.
type Reader struct {
	Losses        []observerapi.Loss
	CompleteSince time.Time
	NodeList      []hubble.Node
	// Forbidden is set if the caller may not read all namespaces.
	Forbidden bool
	// Subscribed is called after a subscription and before Flows: what is put in between is stored, and arrives too.
	Subscribed func()

	mu          sync.Mutex
	flows       []observerapi.Flow
	subscribers []chan hubble.Arrival
}

// New returns a reader that contains flows.
func New(flows ...observerapi.Flow) *Reader { return &Reader{flows: flows} }

// Flows returns what was put.
func (r *Reader) Flows(_ context.Context, q hubble.Query, visit func(*observerapi.Flow) bool) (observerapi.Coverage, error) {
	r.mu.Lock()
	flows := slices.Clone(r.flows)
	r.mu.Unlock()
	slices.SortStableFunc(flows, func(a, b observerapi.Flow) int {
		if q.Newest {
			a, b = b, a
		}
		return cmp.Or(a.Last.Compare(b.Last), cmp.Compare(a.Port, b.Port))
	})
	for i := range flows {
		f := &flows[i]
		if f.Last.Before(q.Since) || !q.Until.IsZero() && !f.Last.Before(q.Until) {
			continue
		}
		if !visit(f) {
			break
		}
	}
	return observerapi.Coverage{Losses: r.Losses, CompleteSince: r.CompleteSince}, nil
}

// Subscribe returns a channel that End closes.
func (r *Reader) Subscribe(context.Context) (<-chan hubble.Arrival, error) {
	c := make(chan hubble.Arrival, 100)
	r.mu.Lock()
	r.subscribers = append(r.subscribers, c)
	r.mu.Unlock()
	if r.Subscribed != nil {
		r.Subscribed()
	}
	return c, nil
}

// End closes the channels of subscribers.
func (r *Reader) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subscribers {
		close(s)
	}
	r.subscribers = nil
}

// Nodes returns NodeList.
func (r *Reader) Nodes(context.Context) ([]hubble.Node, error) { return r.NodeList, r.all() }

func (r *Reader) all() error {
	if r.Forbidden {
		return status.Error(codes.PermissionDenied, "for readers of all namespaces")
	}
	return nil
}

// Namespaces returns those of the flows that were put.
func (r *Reader) Namespaces(_ context.Context, since time.Time) ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for i := range r.flows {
		f := &r.flows[i]
		for _, n := range []string{f.Source.Namespace, f.Destination.Namespace} {
			if n != "" && !f.Last.Before(since) && !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	slices.Sort(out)
	return out, nil
}

// Status counts the flows that were put, all of them an hour after the start.
func (r *Reader) Status(context.Context) (hubble.Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	st := hubble.Status{Stored: uint64(len(r.flows)), Received: uint64(len(r.flows)), PerSecond: 1.5}
	if len(r.flows) > 0 {
		st.Started = r.flows[0].Last.Add(-time.Hour)
	}
	return st, r.all()
}

// Put stores flows and sends them to subscribers.
func (r *Reader) Put(flows ...observerapi.Flow) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.flows = append(r.flows, flows...)
	for i := range flows {
		for _, s := range r.subscribers {
			s <- hubble.Arrival{Flow: &flows[i]}
		}
	}
}

// Lose sends a loss to subscribers.
func (r *Reader) Lose(l observerapi.Loss) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subscribers {
		s <- hubble.Arrival{Loss: &l}
	}
}

// Following returns the number of subscriptions.
func (r *Reader) Following() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.subscribers)
}
