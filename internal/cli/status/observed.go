package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/observerapi"
)

// getter opens an answer of the observer, as observer.Open does.
type getter func(ctx context.Context, path string, query url.Values) (io.ReadCloser, error)

// observed asks the observer for the reports of nodes: one connection instead of one per node. Nodes whose agents it did not get an answer of
// are missing in the result; their agents can be asked directly. As awaitPods does, it asks again about nodes with Pending pods.
func observed(ctx context.Context, open getter, every time.Duration, nodes []string) (map[string]*report, error) {
	out := map[string]*report{}
	for n := 1; ; n++ {
		again, err := observeOnce(ctx, open, nodes, out)
		if err != nil || len(again) == 0 || n == looks {
			return out, err
		}
		nodes = again
		select {
		case <-ctx.Done():
			return out, ctx.Err()
		case <-time.After(every):
		}
	}
}

// observeOnce adds to the reports, and returns the nodes that have Pending pods.
func observeOnce(ctx context.Context, open getter, nodes []string, reports map[string]*report) (pending []string, err error) {
	query := url.Values{}
	if len(reports) > 0 { // some nodes, again
		query["node"] = nodes
	}
	body, err := open(ctx, observerapi.PathNodes, query)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	for lines := json.NewDecoder(body); ; {
		var line observerapi.NodeReport
		if err := lines.Decode(&line); errors.Is(err, io.EOF) {
			return pending, nil
		} else if err != nil {
			return nil, fmt.Errorf("observer: %w", err)
		}
		if line.Report == nil || !slices.Contains(nodes, line.Node) {
			continue
		}
		var r agentapi.NodeReport
		if json.Unmarshal(line.Report, &r) != nil {
			continue // the agent is asked
		}
		reports[line.Node] = &report{node: r.Node, pods: r.Pods, policies: r.Policies, names: r.Names, denied: r.Denied}
		if arePending(r.Pods) {
			pending = append(pending, line.Node)
		}
	}
}
