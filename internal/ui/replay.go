package ui

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/flows"
	recommendcli "github.com/kidoban/kidoban/internal/cli/recommend"
	"github.com/kidoban/kidoban/internal/observerapi"
	"github.com/kidoban/kidoban/internal/recommend"
	"github.com/kidoban/kidoban/internal/replay"
)

// Replayed is which recorded flows would get another verdict if manifests were applied.
type Replayed struct {
	*replay.Report
	Edges []ReplayedEdge `json:"edges"`
}

// ReplayedEdge is the changes between two nodes of the map.
type ReplayedEdge struct {
	// From and To are nodes; empty for an end that is not on the map, such as a workload that is gone.
	From string `json:"from"`
	To   string `json:"to"`
	// Denied and Allowed are how many of the recorded connections would be.
	Denied  uint64 `json:"denied"`
	Allowed uint64 `json:"allowed"`
	// Changes are those of the report, by index. The nodes of all are the same.
	Changes []int `json:"changes"`
}

// Recommended is policies that allow what was recorded.
type Recommended struct {
	*recommend.Result
	// YAML is the policies with comments. What they change is the answer to /api/whatif with this text.
	YAML string `json:"yaml"`
}

// replayed answers what manifests would change for the flows of a time until now.
func (s *Server) replayed(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	body, err := uploaded(r)
	if err != nil {
		return nil, err
	}
	manifests, err := s.options.Parse(body)
	if err != nil {
		return nil, invalid(err)
	}
	recording, err := s.recording(r, snap)
	if err != nil {
		return nil, err
	}
	o := replay.Options{Before: recording.Objects.Policies}
	o.PodCIDRs, o.Nodes = snap.cluster.Addressing.PodCIDRs, recording.Objects.Nodes
	o.After = o.Before.With(replay.Policies{NetworkPolicies: manifests.Policies, ClusterPolicies: manifests.ClusterPolicies})
	report, err := replay.Run(r.Context(), recording, o)
	if err != nil {
		return nil, err
	}
	return &Replayed{report, snap.replayedEdges(report)}, nil
}

// replayedEdges puts changes on the map.
func (s *snapshot) replayedEdges(r *replay.Report) []ReplayedEdge {
	type ends struct{ from, to string }
	at := map[ends]*ReplayedEdge{}
	outside := s.outside()
	for i := range r.Changes {
		c := &r.Changes[i]
		e := ends{s.idOf(c, c.From, outside), s.idOf(c, c.To, outside)}
		if at[e] == nil {
			at[e] = &ReplayedEdge{From: e.from, To: e.to}
		}
		if c.After == replay.Denied {
			at[e].Denied += c.Connections
		} else {
			at[e].Allowed += c.Connections
		}
		at[e].Changes = append(at[e].Changes, i)
	}
	out := []ReplayedEdge{}
	for _, e := range at {
		out = append(out, *e)
	}
	slices.SortFunc(out, func(a, b ReplayedEdge) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
	return out
}

// idOf is the node of an end of a change, empty if there is none.
func (s *snapshot) idOf(c *replay.Change, p replay.Party, outside []outsideBlock) string {
	e := observerapi.End{Namespace: p.Namespace, IsNode: p.Kind == replay.KindNode}
	switch {
	case p.Kind == replay.KindOutside:
		e.DomainNames = p.DomainNames()
		if len(c.Addresses) > 0 { // policies do not tell the addresses of a change apart
			e.Address = c.Addresses[0]
		}
	case p.Namespace != "":
		e.Workload = &agentapi.Workload{Kind: p.Kind, Name: p.Name}
	}
	node, ok := s.nodeOf(&e, outside)
	if !ok {
		return ""
	}
	return s.nodes[node].id
}

// recommended answers with policies for the workloads of namespaces.
func (s *Server) recommended(r *http.Request) (any, error) {
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	query := r.URL.Query()
	o := recommend.Options{Namespaces: query["namespace"], Audit: query.Get("audit") == "true", OnlyMissing: query.Get("onlyMissing") == "true"}
	if len(o.Namespaces) == 0 {
		return nil, invalid(errors.New("no namespace is given"))
	}
	recording, err := s.recording(r, snap)
	if err != nil {
		return nil, err
	}
	in, err := recommend.Read(r.Context(), recording, time.Time{}, snap.cluster.Addressing.PodCIDRs)
	if err != nil {
		return nil, err
	}
	if len(in.Traffic) == 0 {
		return nil, notFound("no connection was recorded: there is nothing to recommend")
	}
	result, err := recommend.Run(in, o)
	if err != nil {
		return nil, err
	}
	text, err := recommendcli.Manifest(in, result)
	if err != nil {
		return nil, err
	}
	return &Recommended{result, string(text)}, nil
}

// recording of the time that a question is about, in memory.
func (s *Server) recording(r *http.Request, snap *snapshot) (*replay.Recording, error) {
	text := cmp.Or(r.URL.Query().Get("since"), "24h")
	since, err := time.ParseDuration(text)
	if err != nil || since <= 0 {
		return nil, invalid(fmt.Errorf("since=%s is not a duration such as 24h", text))
	}
	until := time.Now().Truncate(time.Second)
	return flows.Collect(r.Context(), s.ask, flows.ObjectsOf(snap.cluster), until.Add(-since), until)
}
