package serve

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/kidoban/kidoban/internal/observerapi"
)

// An answer that leaves out something because of its limit says so, and one that is just as long as the limit does not.
func TestTruncatedAnswers(t *testing.T) {
	f := newFixture(t)
	f.fill()
	f.put(key, vault, 8200, observerapi.Allowed, 16, 10*time.Minute) // another flow of the same edge
	// The fixture has five flows, four edges of one decision each, and two rules in two directions.
	for query, want := range map[string]struct {
		answered  int
		truncated bool
	}{
		observerapi.PathFlows: {5, false}, observerapi.PathFlows + "?limit=5": {5, false}, observerapi.PathFlows + "?limit=4": {4, true}, observerapi.PathFlows + "?limit=1&newest": {1, true},
		observerapi.PathEdges: {4, false}, observerapi.PathEdges + "?limit=4": {4, false}, observerapi.PathEdges + "?limit=3": {3, true},
		observerapi.PathHits + "?limit=1": {1, true}, observerapi.PathHits: {-1, false},
	} {
		status, body := f.get("all", query)
		var got struct {
			Coverage    observerapi.Coverage
			Flows, Hits []json.RawMessage
		}
		if err := json.Unmarshal([]byte(body), &got); err != nil || status != http.StatusOK {
			t.Fatalf("%s: %d %s", query, status, body)
		}
		if n := len(got.Flows) + len(got.Hits); got.Coverage.Truncated != want.truncated || want.answered >= 0 && n != want.answered {
			t.Errorf("%s: %d answered, truncated: %t; want %+v", query, n, got.Coverage.Truncated, want)
		}
	}
	if edges := f.list("all", observerapi.PathEdges+"?limit=1"); connections(edges) != 24 {
		t.Errorf("of the edges not the busiest is left: %+v", edges.Flows)
	}
}
