package serve

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/kidoban/kidoban/internal/httpserver"
	"github.com/kidoban/kidoban/internal/observer/ingest"
	"github.com/kidoban/kidoban/internal/observerapi"
)

const (
	// nodesAtOnce is how many agents are asked at a time, for each of at most nodeAnswers answers: their reports are in memory.
	nodesAtOnce = 8
	nodeAnswers = 2
	// nodesTime limits one answer.
	nodesTime = 2 * time.Minute
)

// Agents are those that are connected; ingest.Server is one.
type Agents interface {
	Agents() []ingest.Agent
	// Report asks an agent for its report.
	Report(ctx context.Context, node string) ([]byte, error)
}

func (s *server) nodes(w http.ResponseWriter, r *http.Request) {
	view, err := s.view(r)
	if err == nil && !view.All() {
		err = errForbidden
	}
	if err != nil {
		problem(w, err)
		return
	}
	query := r.URL.Query()
	for name := range query {
		if name != paramNode {
			problem(w, bad("unknown parameter %q: known is %s", name, paramNode))
			return
		}
	}
	if !take(w, s.asking) {
		return
	}
	defer func() { <-s.asking }()
	ctx, cancel := context.WithTimeout(r.Context(), nodesTime)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	var nodes []string
	for _, a := range s.agents.Agents() {
		if !query.Has(paramNode) || slices.Contains(query[paramNode], a.Node) {
			nodes = append(nodes, a.Node)
		}
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	connection := http.NewResponseController(w)
	slots := make(chan struct{}, nodesAtOnce)
	var writing sync.Mutex
	var group sync.WaitGroup
	for _, node := range nodes {
		group.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			line := s.report(ctx, node)
			writing.Lock()
			defer writing.Unlock()
			_ = connection.SetWriteDeadline(time.Now().Add(httpserver.WriteTime))
			if _, err := w.Write(line); err != nil {
				cancel()
			}
		})
	}
	group.Wait()
}

// report asks an agent and returns a line.
func (s *server) report(ctx context.Context, node string) []byte {
	content, err := s.agents.Report(ctx, node)
	if err == nil {
		var line []byte
		if line, err = json.Marshal(observerapi.NodeReport{Node: node, Report: content}); err == nil {
			return append(line, '\n')
		}
	}
	line, err := json.Marshal(observerapi.NodeReport{Node: node, Problem: err.Error()})
	if err != nil {
		return nil
	}
	return append(line, '\n')
}
