package ui

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// answerTime limits an answer of the observer that ends.
	answerTime = time.Minute
	// heartbeat is how often a stream without flows sends a comment, so that proxies do not end it.
	heartbeat = 15 * time.Second
	// again is the pause after which an observer that went away is asked again.
	again = 3 * time.Second
	// writeTime is how long a browser may take to read what a stream sends.
	writeTime = 30 * time.Second
	// mostFlows is how many flows are shown where the page asks for no number.
	mostFlows = 1000
)

// ShownFlow is a flow with its ends on the map: the IDs of its nodes, empty for an end that is not on it.
type ShownFlow struct {
	observerapi.Flow
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// FlowList is an answer with flows, the newest first.
type FlowList struct {
	Coverage observerapi.Coverage `json:"coverage"`
	Hidden   []string             `json:"hidden,omitempty"`
	Flows    []ShownFlow          `json:"flows"`
}

// ask the observer for an answer that ends.
func (s *Server) ask(ctx context.Context, path string, query url.Values, into any) error {
	if s.options.Observer == nil {
		return failure{http.StatusNotFound, "there is no observer: docs/observer.md describes how to install one"}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	body, err := s.options.Observer(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(body).Decode(into); err != nil {
		return fmt.Errorf("read the observer's answer: %w", err)
	}
	return nil
}

// flows answers with the newest flows of a query, whose parameters are the observer's.
func (s *Server) flows(r *http.Request) (any, error) {
	query := r.URL.Query()
	query.Del("follow")
	query.Set("newest", "true")
	if query.Get("limit") == "" {
		query.Set("limit", strconv.Itoa(mostFlows))
	}
	var list observerapi.FlowList
	if err := s.ask(r.Context(), observerapi.PathFlows, query, &list); err != nil {
		return nil, err
	}
	show := s.shower(r.Context())
	out := &FlowList{Coverage: list.Coverage, Hidden: list.Hidden, Flows: []ShownFlow{}}
	for i := range list.Flows {
		out.Flows = append(out.Flows, show(&list.Flows[i]))
	}
	return out, nil
}

// shower returns what finds the ends of flows on the map, if the cluster can be read.
func (s *Server) shower(ctx context.Context) func(*observerapi.Flow) ShownFlow {
	snap, err := s.snapshot(ctx)
	if reader, ok := ctx.Value(readerKey{}).(reader); err != nil || ok && !reader.all { // names on the map are those of policies
		return func(f *observerapi.Flow) ShownFlow { return ShownFlow{Flow: *f} }
	}
	outside := snap.outside()
	return func(f *observerapi.Flow) ShownFlow {
		out := ShownFlow{Flow: *f}
		if n, ok := snap.nodeOf(&f.Source, outside); ok {
			out.From = snap.nodes[n].id
		}
		if n, ok := snap.nodeOf(&f.Destination, outside); ok {
			out.To = snap.nodes[n].id
		}
		return out
	}
}

// hits answers how often rules decided.
func (s *Server) hits(r *http.Request) (any, error) {
	out := &observerapi.HitList{}
	query := r.URL.Query()
	query.Set("limit", strconv.Itoa(mostEdges))
	err := s.ask(r.Context(), observerapi.PathHits, query, out)
	out.Coverage.Truncated = out.Coverage.LeftOut(len(out.Hits), mostEdges)
	return out, err
}

// live streams flows as server-sent events: those since a time, and those that arrive. The event "missing" has an
// observerapi.Missing, "live" says that the observer answers, and "lost" with a Problem that it does not; it is asked again until the browser goes.
func (s *Server) live(w http.ResponseWriter, r *http.Request) {
	if s.options.Observer == nil {
		http.Error(w, "there is no observer", http.StatusNotFound)
		return
	}
	stream := &stream{w: w, connection: http.NewResponseController(w), show: s.shower(r.Context())}
	_ = stream.connection.SetReadDeadline(time.Time{}) // the server's limit is for the request, which is read
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // nginx would collect events
	query := r.URL.Query()
	query.Set("follow", "true")
	if since := r.Header.Get("Last-Event-ID"); since != "" { // the browser connects again
		query.Set("since", since)
	}
	for {
		err := s.follow(r.Context(), stream, query)
		if r.Context().Err() != nil || errors.Is(err, errGone) {
			return
		}
		problem, _ := json.Marshal(problemOf(err)) // of texts
		if stream.event("lost", "", problem) != nil || stream.pause(r.Context(), again) != nil {
			return
		}
		if !stream.last.IsZero() {
			query.Set("since", stream.last.Format(time.RFC3339Nano))
		}
	}
}

// errGone is the error of a stream whose browser has gone.
var errGone = errors.New("the browser has gone")

// follow an observer until it ends the answer.
func (s *Server) follow(ctx context.Context, out *stream, query url.Values) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	body, err := s.options.Observer(ctx, observerapi.PathFlows, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	defer context.AfterFunc(ctx, func() { _ = body.Close() })()
	if err := out.event("live", "", []byte("{}")); err != nil {
		return err
	}
	lines, failed := make(chan []byte), make(chan error, 1)
	go func() {
		defer close(lines)
		failed <- readLines(ctx, body, lines)
	}()
	for {
		select {
		case line, ok := <-lines:
			if !ok {
				return <-failed
			}
			if err := out.flow(line); err != nil {
				return err
			}
		case <-time.After(heartbeat):
			if err := out.comment(); err != nil {
				return err
			}
		}
	}
}

// readLines of an answer until it ends. Empty ones keep the connection.
func readLines(ctx context.Context, body io.Reader, lines chan<- []byte) error {
	in := bufio.NewReaderSize(body, 1<<16)
	for {
		line, err := in.ReadBytes('\n')
		if line = bytes.TrimSpace(line); len(line) > 0 {
			select {
			case lines <- line:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return errors.New("the observer has ended its answer")
		}
	}
}

// stream of server-sent events to a browser.
type stream struct {
	w          http.ResponseWriter
	connection *http.ResponseController
	show       func(*observerapi.Flow) ShownFlow
	// last is the time of the last connection that was sent.
	last time.Time
}

func (s *stream) flow(line []byte) error {
	var l observerapi.FollowedLine
	if err := json.Unmarshal(line, &l); err != nil {
		return fmt.Errorf("read a flow of the observer: %w", err)
	}
	if !l.IsFlow() {
		if len(l.Losses) == 0 && l.Missed == 0 { // a line of a later version
			return nil
		}
		text, err := json.Marshal(l.Missing)
		if err != nil {
			return err
		}
		return s.event("missing", "", text)
	}
	f := l.Flow
	if f.Last.After(s.last) {
		s.last = f.Last
	}
	text, err := json.Marshal(s.show(&f))
	if err != nil {
		return err
	}
	return s.event("", s.last.Format(time.RFC3339Nano), text)
}

// event with an ID, with which the browser asks for what follows if it connects again.
func (s *stream) event(name, id string, data []byte) error {
	var text bytes.Buffer
	if name != "" {
		fmt.Fprintf(&text, "event: %s\n", name)
	}
	if id != "" {
		fmt.Fprintf(&text, "id: %s\n", id)
	}
	fmt.Fprintf(&text, "data: %s\n\n", data)
	return s.write(text.Bytes())
}

func (s *stream) comment() error { return s.write([]byte(": \n\n")) }

func (s *stream) write(text []byte) error {
	_ = s.connection.SetWriteDeadline(time.Now().Add(writeTime))
	if _, err := s.w.Write(text); err != nil || s.connection.Flush() != nil {
		return errGone
	}
	return nil
}

// pause for a time.
func (s *stream) pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
