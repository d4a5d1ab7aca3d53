package serve

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/observer/access"
	"github.com/kidoban/kidoban/internal/observer/flows"
	"github.com/kidoban/kidoban/internal/observer/pairing"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// queryTime limits the work for one answer.
	queryTime = 30 * time.Second
	// answers and followers are how many are worked on at a time.
	answers, followers = 8, 64
	// tokenTime is how often a follower's token is looked at again.
	tokenTime = 30 * time.Second
)

// Handler returns the handler of the API. Streams end with ctx.
func Handler(ctx context.Context, f *flows.Flows, agents Agents, guard *access.Guard) http.Handler {
	s := &server{
		ctx: ctx, flows: f, agents: agents, guard: guard,
		answering: make(chan struct{}, answers), following: make(chan struct{}, followers), asking: make(chan struct{}, nodeAnswers),
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+observerapi.PathFlows, s.getFlows)
	mux.HandleFunc("GET "+observerapi.PathEdges, s.answer(s.edges))
	mux.HandleFunc("GET "+observerapi.PathHits, s.answer(s.hits))
	mux.HandleFunc("GET "+observerapi.PathStatus, s.answer(s.status))
	mux.HandleFunc("GET "+observerapi.PathNodes, s.nodes)
	return mux
}

type server struct {
	ctx    context.Context
	flows  *flows.Flows
	agents Agents
	guard  *access.Guard
	// Places of those whose requests are worked on.
	answering, following, asking chan struct{}
}

// TokenOf returns the token of an Authorization header: a bearer token, or the password of the Basic scheme.
func TokenOf(header string) string {
	scheme, rest, _ := strings.Cut(header, " ")
	rest = strings.TrimSpace(rest)
	switch {
	case strings.EqualFold(scheme, "Bearer"):
		return rest
	case strings.EqualFold(scheme, "Basic"):
		r := http.Request{Header: http.Header{"Authorization": {header}}}
		_, password, _ := r.BasicAuth()
		return password
	}
	return ""
}

// errForbidden is returned where an answer is for readers of all namespaces.
var errForbidden = errors.New("this is for those that may get flows.kidoban.dev in all namespaces")

// problem answers with the status of an error.
func problem(w http.ResponseWriter, err error) {
	var bad badParameter
	switch {
	case errors.As(err, &bad):
		http.Error(w, err.Error(), http.StatusBadRequest)
	case errors.Is(err, access.ErrToken):
		w.Header().Set("WWW-Authenticate", "Bearer")
		http.Error(w, access.ErrToken.Error(), http.StatusUnauthorized)
	case errors.Is(err, errForbidden):
		http.Error(w, err.Error(), http.StatusForbidden)
	case errors.Is(err, access.ErrUnavailable):
		http.Error(w, access.ErrUnavailable.Error(), http.StatusServiceUnavailable)
	case errors.Is(err, context.DeadlineExceeded):
		http.Error(w, fmt.Sprintf("the answer takes longer than %s: ask for less time", queryTime), http.StatusServiceUnavailable)
	default:
		http.Error(w, "cannot read the store", http.StatusInternalServerError)
	}
}

// view returns what the caller may see.
func (s *server) view(r *http.Request) (*access.View, error) {
	reader, err := s.guard.Reader(r.Context(), TokenOf(r.Header.Get("Authorization")))
	if err != nil {
		return nil, err
	}
	return access.NewView(r.Context(), reader)
}

// take takes a place, or answers that there is none.
func take(w http.ResponseWriter, places chan struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once", http.StatusServiceUnavailable)
		return false
	}
}

// answer makes a handler of a function that returns an answer.
func (s *server) answer(do func(context.Context, *access.View, parameters) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		view, err := s.view(r)
		if err != nil {
			problem(w, err)
			return
		}
		if !take(w, s.answering) {
			return
		}
		defer func() { <-s.answering }()
		p, err := parse(r.URL.Query(), time.Now())
		if err != nil {
			problem(w, err)
			return
		}
		ctx, cancel := context.WithTimeout(r.Context(), queryTime)
		defer cancel()
		out, err := do(ctx, view, p)
		if err != nil {
			problem(w, err)
			return
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(httpserver.WriteTime))
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // an error is the reader's, which is gone
	}
}

func (s *server) list(ctx context.Context, view *access.View, p parameters) (any, error) {
	list := observerapi.FlowList{APIVersion: observerapi.APIVersion, Kind: observerapi.KindFlowList, Flows: []observerapi.Flow{}}
	truncated := false
	coverage, err := s.flows.Scan(ctx, view, p.Query, func(f *observerapi.Flow) bool {
		if truncated = len(list.Flows) == p.limit; !truncated {
			list.Flows = append(list.Flows, *f)
		}
		return !truncated
	})
	list.Coverage, list.Hidden = coverage, view.Hidden()
	list.Coverage.Truncated = truncated
	return list, err
}

func (s *server) edges(ctx context.Context, view *access.View, p parameters) (any, error) {
	edges, coverage, err := s.flows.Edges(ctx, view, p.Query)
	list := observerapi.FlowList{APIVersion: observerapi.APIVersion, Kind: observerapi.KindFlowList, Coverage: coverage, Flows: []observerapi.Flow{}}
	list.Hidden = view.Hidden()
	if list.Coverage.Truncated = len(edges) > p.limit; list.Coverage.Truncated { // the busiest are left
		slices.SortStableFunc(edges, func(a, b *observerapi.Flow) int { return cmp.Compare(b.Connections, a.Connections) })
		edges = edges[:p.limit]
	}
	for _, f := range edges {
		list.Flows = append(list.Flows, *f)
	}
	return list, err
}

func (s *server) hits(ctx context.Context, view *access.View, p parameters) (any, error) {
	hits, coverage, err := s.flows.Hits(ctx, view, p.Query)
	coverage.Truncated = len(hits) > p.limit
	return observerapi.HitList{APIVersion: observerapi.APIVersion, Kind: observerapi.KindHitList, Coverage: coverage, Hits: hits[:min(len(hits), p.limit)]}, err
}

func (s *server) status(ctx context.Context, view *access.View, _ parameters) (any, error) {
	if !view.All() {
		return nil, errForbidden
	}
	return s.flows.Status(ctx)
}

func (s *server) getFlows(w http.ResponseWriter, r *http.Request) {
	p, err := parse(r.URL.Query(), time.Now())
	if err != nil || !p.follow {
		s.answer(s.list)(w, r)
		return
	}
	view, err := s.view(r)
	if err != nil {
		problem(w, err)
		return
	}
	if !take(w, s.following) {
		return
	}
	defer func() { <-s.following }()
	s.follow(w, r, view, p)
}

// follow answers with lines of JSON without end: flows since the time that is asked for, and those that arrive.
func (s *server) follow(w http.ResponseWriter, r *http.Request, view *access.View, p parameters) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	w.Header().Set("Content-Type", "application/x-ndjson")
	connection := http.NewResponseController(w)
	lines := json.NewEncoder(w)
	write := func(line any) bool {
		_ = connection.SetWriteDeadline(time.Now().Add(httpserver.WriteTime))
		return lines.Encode(line) == nil
	}
	began := time.Now()
	arrivals := s.flows.Follow(ctx, view, p.Filter) // before what is stored is read, so that nothing is between the two
	shown := pairing.Shown{}
	if !p.Since.IsZero() {
		coverage, err := s.flows.Scan(ctx, view, p.Query, func(f *observerapi.Flow) bool {
			shown.Add(f, began)
			return write(f)
		})
		if err != nil || len(coverage.Losses) > 0 && !write(observerapi.Missing{Losses: coverage.Losses}) {
			return
		}
	}
	_ = connection.Flush()
	again := time.NewTicker(tokenTime)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C: // the token may have ended
			if _, err := s.view(r); err != nil {
				return
			}
			if time.Since(began) > pairing.Overlap {
				shown = nil
			}
			_ = connection.SetWriteDeadline(time.Now().Add(httpserver.WriteTime))
			if _, err := w.Write([]byte("\n")); err != nil || connection.Flush() != nil { // keeps proxies from ending an idle stream
				return
			}
		case a, ok := <-arrivals:
			if !ok {
				return
			}
			if missing := (observerapi.Missing{Losses: a.Losses, Missed: a.Missed}); (len(a.Losses) > 0 || a.Missed > 0) && !write(missing) {
				return
			}
			if a.Flow != nil && !shown.Contains(a.Flow) && !write(a.Flow) {
				return
			}
			if len(arrivals) == 0 && connection.Flush() != nil {
				return
			}
		}
	}
}
