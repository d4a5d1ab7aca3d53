package flows

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observer/store"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// maxRecord is the longest time between the first and the last connection of a flow with the resolution store.Exact.
const maxRecord = 11 * time.Minute

// Query says which flows are asked for. The zero value of a field asks for all.
type Query struct {
	// Since <= the last connection < Until.
	Since, Until time.Time
	// Newest asks for the newest flow first.
	Newest bool
	Filter
}

// Scan calls visit with the flows of a query in the order of their last connections, until it returns false, and returns how much
// of the time is covered.
func (f *Flows) Scan(ctx context.Context, view *access.View, q Query, visit func(*observerapi.Flow) bool) (observerapi.Coverage, error) {
	since, until, err := f.bounds(ctx, q)
	if err != nil {
		return observerapi.Coverage{}, err
	}
	s := pairing.NewStream(!q.Newest, func(flow *observerapi.Flow) bool {
		if flow.Last.Before(since) || !flow.Last.Before(until) {
			return true
		}
		shown := view.Flow(flow)
		return shown == nil || !q.Match(shown) || visit(shown)
	})
	of := q.Filter.query()
	// A flow with an end that was reported before until is read with its other end: only then it is known whether it belongs here.
	of.Since, of.Until, of.Oldest = since.Add(-maxRecord), until.Add(pairing.Tolerance+store.Exact), !q.Newest
	if err := f.options.Store.Scan(ctx, of, s.Add); err != nil {
		return observerapi.Coverage{}, err
	}
	s.Close()
	if err := view.Err(); err != nil {
		return observerapi.Coverage{}, err
	}
	return f.shown(ctx, view, q, since, until)
}

// shown is how much of the time of a query is covered, as the reader may see it.
func (f *Flows) shown(ctx context.Context, view *access.View, q Query, since, until time.Time) (observerapi.Coverage, error) {
	c, err := f.coverage(ctx, since, until)
	c.Losses = view.Losses(c.Losses, q.Namespace)
	return c, err
}

// bounds returns the time of a query: as far as there are flows, where it has no bounds.
func (f *Flows) bounds(ctx context.Context, q Query) (since, until time.Time, err error) {
	since, until = q.Since, q.Until
	if until.IsZero() {
		until = time.Now().Add(time.Second)
	}
	if since.IsZero() {
		status, err := f.options.Store.Status(ctx)
		if err != nil {
			return since, until, err
		}
		if since = status.Since; since.IsZero() || since.After(until) {
			since = until
		}
	}
	return since, until, nil
}

// Edges returns the flows of a query summed up by workload.
func (f *Flows) Edges(ctx context.Context, view *access.View, q Query) ([]*observerapi.Flow, observerapi.Coverage, error) {
	since, until, err := f.bounds(ctx, q)
	if err != nil {
		return nil, observerapi.Coverage{}, err
	}
	sum, resolution := pairing.NewSum(edgeEnd), store.Minute
	of := q.Filter.query()
	of.Since, of.Until = since, until
	if err := f.options.Store.Sums(ctx, of, func(r *store.Report) bool {
		sum.Add(r)
		resolution = max(resolution, r.Resolution)
		return true
	}); err != nil {
		return nil, observerapi.Coverage{}, err
	}
	var out []*observerapi.Flow
	for _, flow := range sum.Flows() {
		if shown := view.Flow(flow); shown != nil && q.Match(shown) {
			out = append(out, shown)
		}
	}
	if err := view.Err(); err != nil {
		return nil, observerapi.Coverage{}, err
	}
	c, err := f.shown(ctx, view, q, since, until)
	c.Resolution = max(c.Resolution, int(resolution.Seconds()))
	return out, c, err
}

// edgeEnd returns what an edge shows of an end.
func edgeEnd(e *observerapi.End) observerapi.End {
	if e.Namespace == "" {
		return observerapi.End{IsNode: e.IsNode, DomainNames: e.DomainNames}
	}
	return observerapi.End{Namespace: e.Namespace, Workload: e.Workload}
}

// Hits returns how often rules decided in a time, those that decided most first. Connections count if the reader may read the
// namespace of the end whose policies decided.
func (f *Flows) Hits(ctx context.Context, view *access.View, q Query) ([]observerapi.Hit, observerapi.Coverage, error) {
	since, until, err := f.bounds(ctx, q)
	if err != nil {
		return nil, observerapi.Coverage{}, err
	}
	hits, resolution := map[string]*observerapi.Hit{}, store.Minute
	of := q.Filter.query()
	of.Since, of.Until = since, until
	if err := f.options.Store.Sums(ctx, of, func(r *store.Report) bool {
		resolution = max(resolution, r.Resolution)
		own, direction := r.Source, "Egress"
		if r.Direction == store.Ingress {
			own, direction = r.Destination, "Ingress"
		}
		if r.Continues || !view.CanRead(own.Namespace) {
			return true
		}
		add := func(rule agentapi.RuleRef, verdict observerapi.Verdict) {
			if q.Policy.Name != "" && !q.isPolicy(rule.PolicyRef) {
				return
			}
			key := fmt.Sprint(rule, direction, verdict, r.Decision.Reason, r.Decision.Tier)
			h := hits[key]
			if h == nil {
				h = &observerapi.Hit{RuleRef: rule, Direction: direction, Verdict: verdict, Reason: r.Decision.Reason, Tier: r.Decision.Tier}
				hits[key] = h
			}
			h.Connections += r.Connections
			if r.Last.After(h.Last) {
				h.Last = r.Last
			}
		}
		d := r.Decision
		if !r.Beside { // another report has the verdict that the connections got
			if d.Policy != nil {
				add(*d.Policy, d.Verdict)
			}
			for _, p := range d.IsolatedBy {
				add(agentapi.RuleRef{PolicyRef: p}, d.Verdict)
			}
		}
		for _, p := range d.AuditedBy {
			verdict := observerapi.WouldBeDeny
			if d.Audited == observerapi.Allowed {
				verdict = observerapi.WouldBeAllow
			}
			add(agentapi.RuleRef{PolicyRef: p}, verdict)
		}
		return true
	}); err != nil {
		return nil, observerapi.Coverage{}, err
	}
	if err := view.Err(); err != nil {
		return nil, observerapi.Coverage{}, err
	}
	out := make([]observerapi.Hit, 0, len(hits))
	for _, key := range slices.Sorted(maps.Keys(hits)) {
		out = append(out, *hits[key])
	}
	slices.SortStableFunc(out, func(a, b observerapi.Hit) int { return cmp.Compare(b.Connections, a.Connections) })
	c, err := f.shown(ctx, view, q, since, until)
	c.Resolution = max(c.Resolution, int(resolution.Seconds()))
	return out, c, err
}

// Follow returns what arrives from now on, as a reader may see it, until the context is done or
// the API server cannot be asked about the reader.
func (f *Flows) Follow(ctx context.Context, view *access.View, filter Filter) <-chan Arrival {
	in, out := f.live.follow(ctx), make(chan Arrival)
	go func() {
		defer close(out)
		for a := range in {
			if view.Err() != nil {
				return
			}
			if a.Flow != nil {
				if a.Flow = view.Flow(a.Flow); a.Flow != nil && !filter.Match(a.Flow) {
					a.Flow = nil
				}
			}
			a.Losses = view.Losses(a.Losses, filter.Namespace)
			if a.Flow == nil && a.Missed == 0 && len(a.Losses) == 0 {
				continue
			}
			select {
			case out <- a:
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// Status reports what the observer has.
func (f *Flows) Status(ctx context.Context) (observerapi.Status, error) {
	stored, err := f.options.Store.Status(ctx)
	if err != nil {
		return observerapi.Status{}, err
	}
	now := time.Now()
	out := observerapi.Status{
		APIVersion: observerapi.APIVersion, Kind: observerapi.KindStatus, Version: f.options.Version, Started: f.started,
		CompleteSince: f.began(stored), Since: stored.Since, ExactSince: stored.ExactSince, Bytes: stored.Bytes, Reports: stored.Reports, CertificateExpires: f.options.CertificateExpires(),
	}
	out.PerSecond, _ = f.live.rate.read(now)
	if out.Nodes, err = f.Nodes(ctx); err != nil {
		return out, err
	}
	c, err := f.coverage(ctx, now.Add(-time.Hour), now)
	out.Losses = c.Losses
	return out, err
}

// Received is the number of reports that have arrived since the observer started.
func (f *Flows) Received() uint64 {
	_, total := f.live.rate.read(time.Now())
	return total
}

// Nodes returns the nodes of the cluster, and those that have reported, by name.
func (f *Flows) Nodes(ctx context.Context) ([]observerapi.NodeStatus, error) {
	nodes := map[string]observerapi.NodeStatus{}
	stored, err := f.options.Store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range stored {
		nodes[n.Name] = observerapi.NodeStatus{First: n.First, Last: n.Last}
	}
	for _, name := range f.options.Nodes() {
		if _, ok := nodes[name]; !ok {
			nodes[name] = observerapi.NodeStatus{}
		}
	}
	for _, a := range f.options.Agents() {
		n := nodes[a.Node]
		n.Connected, n.ClockAhead = a.Since, a.ClockAhead.Seconds()
		nodes[a.Node] = n
	}
	out := make([]observerapi.NodeStatus, 0, len(nodes))
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		n := nodes[name]
		n.Name = name
		out = append(out, n)
	}
	return out, nil
}

// Namespaces returns the namespaces of ends of flows since a time that the reader may see, by name.
func (f *Flows) Namespaces(ctx context.Context, view *access.View, since time.Time) ([]string, error) {
	edges, _, err := f.Edges(ctx, view, Query{Since: since})
	names := map[string]bool{}
	for _, e := range edges {
		for _, end := range []*observerapi.End{&e.Source, &e.Destination} {
			if end.Namespace != "" {
				names[end.Namespace] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(names)), err
}
