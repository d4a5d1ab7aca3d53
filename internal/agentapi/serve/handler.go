package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/httpserver"
)

// Node is what there is to tell about.
type Node interface {
	Pods() []agentapi.Pod
	Policies() []agentapi.Policy
	// LearnedNames returns the trusted resolvers and the names, without the node's name.
	LearnedNames() (agentapi.NameList, error)
}

// Events is a ring of recent events; flowlog.Recent is one.
type Events interface {
	From(number uint64) (events []agentapi.Event, first uint64)
	Wait(ctx context.Context, number uint64) (events []agentapi.Event, first uint64)
}

// Handler answers for the node of a name, without authentication. Streams end with the context.
func Handler(ctx context.Context, name string, node Node, events Events, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+agentapi.PathNode, func(w http.ResponseWriter, _ *http.Request) {
		n, err := nodeOf(name, metrics)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, n)
	})
	mux.HandleFunc("GET "+agentapi.PathNames, func(w http.ResponseWriter, _ *http.Request) {
		names, err := node.LearnedNames()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		names.Node = name
		answer(w, names)
	})
	mux.HandleFunc("GET "+agentapi.PathPods, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, agentapi.PodList{Node: name, Pods: node.Pods()})
	})
	mux.HandleFunc("GET "+agentapi.PathPolicies, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, agentapi.PolicyList{Node: name, Policies: node.Policies()})
	})
	mux.HandleFunc("GET "+agentapi.PathEvents, func(w http.ResponseWriter, r *http.Request) {
		since, follow, err := eventParameters(r.URL.Query(), time.Now())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		until, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		stream(until, w, events, since, follow)
	})
	return mux
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // an error is the reader's, who is gone
}

func eventParameters(q url.Values, now time.Time) (since time.Time, follow bool, err error) {
	if s := q.Get(agentapi.ParamFollow); q.Has(agentapi.ParamFollow) && s != "" {
		if follow, err = strconv.ParseBool(s); err != nil {
			return since, false, fmt.Errorf("%s=%q is neither true nor false", agentapi.ParamFollow, s)
		}
	} else {
		follow = q.Has(agentapi.ParamFollow)
	}
	s := q.Get(agentapi.ParamSince)
	if s == "" {
		return since, follow, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), follow, nil
	}
	if since, err = time.Parse(time.RFC3339, s); err != nil {
		return since, false, fmt.Errorf("%s=%q is neither a duration (10m) nor a time (2006-01-02T15:04:05Z)", agentapi.ParamSince, s)
	}
	return since, follow, nil
}

func stream(ctx context.Context, w http.ResponseWriter, recent Events, since time.Time, follow bool) {
	w.Header().Set("Content-Type", agentapi.ContentTypeEvents)
	lines := json.NewEncoder(w)
	connection := http.NewResponseController(w)
	events, first := recent.From(0)
	next := first // what is gone before anybody asked was not missed
	for {
		missed := first - next
		// A reader that stands still must not hold the connection.
		_ = connection.SetWriteDeadline(time.Now().Add(httpserver.WriteTime))
		for i := range events {
			if events[i].Time.Before(since) {
				continue
			}
			if lines.Encode(agentapi.StreamedEvent{Event: events[i], Missed: missed}) != nil {
				return
			}
			missed = 0
		}
		if err := connection.Flush(); !follow || err != nil && !errors.Is(err, http.ErrNotSupported) {
			return
		}
		next = first + uint64(len(events))
		if events, first = recent.Wait(ctx, next); len(events) == 0 {
			return
		}
	}
}
