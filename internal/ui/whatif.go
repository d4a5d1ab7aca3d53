package ui

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/kidoban/kidoban/internal/cli/diff"
	"github.com/kidoban/kidoban/internal/cli/model"
)

// WhatIf is what applying manifests would change.
type WhatIf struct {
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	// Pairs that gain or lose ports. Those of which one end is ranges of addresses outside the cluster name the ranges.
	Pairs []ChangedPair `json:"pairs"`
	New   []string      `json:"newWorkloads"`
	Gone  []string      `json:"goneWorkloads"`
	Notes []string      `json:"notes"`
	// Read is how many objects the manifests have, by what they are.
	Read map[string]int `json:"read"`
	// Text is what `kubectl kidoban diff` prints.
	Text string `json:"text"`
}

// ChangedPair is a pair that gains or loses ports.
type ChangedPair struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Gained and Lost are ports as text; empty for none.
	Gained string `json:"gained"`
	Lost   string `json:"lost"`
	// Some pods only; Depends on an address that is not known: it cannot be decided.
	Some    bool `json:"some,omitempty"`
	Depends bool `json:"depends,omitempty"`
}

func (s *Server) whatIf(r *http.Request) (any, error) {
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
	report, err := diff.Applied(snap.cluster, manifests)
	if err != nil {
		return nil, invalid(err)
	}
	out := &WhatIf{
		Added: report.Added, Changed: report.Changed, Removed: report.Removed, Pairs: []ChangedPair{}, New: []string{}, Gone: []string{},
		Notes: report.Notes, Text: report.Text(),
		Read: map[string]int{
			"policies": len(manifests.Policies), "clusterPolicies": len(manifests.ClusterPolicies), "workloads": len(manifests.Workloads()),
		},
	}
	name := func(w model.Workload) string {
		if at, ok := snap.byObject[w]; ok {
			return snap.nodes[at].id
		}
		if w.Kind == "Address" {
			return outsidePrefix + w.Name
		}
		return w.String()
	}
	ports := func(p model.PortSet) string {
		if p.Empty() {
			return ""
		}
		return p.String()
	}
	for _, p := range report.Pairs {
		out.Pairs = append(out.Pairs, ChangedPair{name(p.From), name(p.To), ports(p.Gained), ports(p.Lost), p.Some, p.Depends})
	}
	for _, n := range report.Names {
		out.Pairs = append(out.Pairs, ChangedPair{From: name(n.From), To: outsidePrefix + n.Name, Gained: ports(n.Gained), Lost: ports(n.Lost)})
	}
	for _, w := range report.New {
		out.New = append(out.New, name(w))
	}
	for _, w := range report.Gone {
		out.Gone = append(out.Gone, name(w))
	}
	return out, nil
}

// uploaded are the manifests of a question.
func uploaded(r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(r.Body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, failure{http.StatusRequestEntityTooLarge, fmt.Sprintf("the manifests are larger than %d MiB", mostUploaded>>20)}
	}
	if err != nil {
		return nil, invalid(err)
	}
	return body, nil
}
