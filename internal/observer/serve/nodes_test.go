package serve

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// reporters are agents with their reports; an empty one is an error.
type reporters map[string]string

func (r reporters) Agents() (out []ingest.Agent) {
	for node := range r {
		out = append(out, ingest.Agent{Node: node})
	}
	return out
}

func (r reporters) Report(_ context.Context, node string) ([]byte, error) {
	if r[node] == "" {
		return nil, errors.New("no answer")
	}
	return []byte(r[node]), nil
}

func TestNodes(t *testing.T) {
	f := newFixture(t)
	ask := func(query string) map[string]string {
		status, body := f.get("all", observerapi.PathNodes+query)
		if status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
		out := map[string]string{}
		for lines := json.NewDecoder(strings.NewReader(body)); ; {
			var line observerapi.NodeReport
			if err := lines.Decode(&line); errors.Is(err, io.EOF) {
				return out
			} else if err != nil {
				t.Fatal(err)
			}
			if out[line.Node] = string(line.Report); line.Problem != "" {
				out[line.Node] = "a problem"
			}
		}
	}
	// n3's agent sends what is no JSON.
	if diff := cmp.Diff(map[string]string{"n1": `{"denied":1}`, "n2": "a problem", "n3": "a problem"}, ask("")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"n1": `{"denied":1}`}, ask("?node=n1&node=n9")); diff != "" {
		t.Error(diff)
	}
	for token, want := range map[string]int{"shop": http.StatusForbidden, "none": http.StatusForbidden, "other": http.StatusUnauthorized, "": http.StatusUnauthorized} {
		if status, body := f.get(token, observerapi.PathNodes); status != want {
			t.Errorf("token %q: %d %s", token, status, body)
		}
	}
	if status, body := f.get("all", observerapi.PathNodes+"?nodes=n1"); status != http.StatusBadRequest {
		t.Errorf("%d %s", status, body)
	}
}
