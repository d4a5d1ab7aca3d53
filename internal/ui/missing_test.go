package ui

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// What is missing in a stream reaches the page, and lines of a later version of the observer do not.
func TestTheStreamReportsWhatIsMissing(t *testing.T) {
	s := serve(t, readShop(t))
	s.options.Observer = func(context.Context, string, url.Values) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(`{"losses":[{"node":"n1","reason":"map","packets":7}]}
{"ofALaterVersion":{"a":1}}
{"missed":3}
{"protocol":"TCP","port":80,"connections":1,"ofALaterVersion":2}
`)), nil
	}
	w := httptest.NewRecorder()
	err := s.follow(t.Context(), &stream{w: w, connection: http.NewResponseController(w), show: s.shower(t.Context())}, url.Values{})
	if err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("the stream ended: %v", err)
	}
	got := w.Body.String()
	for _, want := range []string{"event: missing\ndata: {\"losses\":[{\"node\":\"n1\",", "event: missing\ndata: {\"missed\":3}\n", "\"port\":80"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	if strings.Count(got, "data:") != 4 { // with live
		t.Errorf("there is more in\n%s", got)
	}
}

// An answer of the observer that leaves something out is marked, also that of a version that does not report it.
func TestTruncatedAnswers(t *testing.T) {
	for name, tc := range map[string]struct {
		reported bool
		answered int
		want     bool
	}{"complete": {false, 3, false}, "reported": {true, 3, true}, "full": {false, mostEdges, true}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, readShop(t))
			s.options.Observer = func(_ context.Context, path string, _ url.Values) (io.ReadCloser, error) {
				coverage := observerapi.Coverage{Truncated: tc.reported}
				if path == observerapi.PathHits {
					return answer(t, observerapi.HitList{Coverage: coverage, Hits: make([]observerapi.Hit, tc.answered)}), nil
				}
				return answer(t, observerapi.FlowList{Coverage: coverage, Flows: make([]observerapi.Flow, tc.answered)}), nil
			}
			if g := get[Graph](t, s, "/api/graph"); g.Traffic.Truncated != tc.want {
				t.Errorf("the map: %+v", g.Traffic)
			}
			if h := get[observerapi.HitList](t, s, "/api/hits"); h.Coverage.Truncated != tc.want {
				t.Errorf("the hits: %+v", h.Coverage)
			}
		})
	}
}
