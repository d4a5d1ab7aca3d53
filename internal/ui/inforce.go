package ui

import (
	"net/http"
	"time"

	"github.com/kidoban/kidoban/internal/cli/model"
)

// InForce is what the nodes' agents report about policies and pods.
type InForce struct {
	// Policies by ID, as in Policy.
	Policies map[string]PolicyInForce `json:"policies"`
	// Workloads by ID of their node on the map.
	Workloads map[string]WorkloadInForce `json:"workloads"`
	// Problems that need action, as `kubectl kidoban status` lists them.
	Problems []string `json:"problems,omitempty"`
	// Pods that agents report, by workload.
	Pods map[model.Workload]WorkloadInForce `json:"-"`
}

// PolicyInForce is how far a policy is in force.
type PolicyInForce struct {
	// Nodes that have pods in its namespace, and on how many of them its newest version is in force.
	Nodes   int `json:"nodes"`
	InForce int `json:"inForce"`
	// Resolved is the condition of its PolicyEndpoint: True, False, Missing or Behind. Message is why it is not True.
	Resolved string `json:"resolved"`
	Message  string `json:"message,omitempty"`
	// AuditedSince is since when it is audited.
	AuditedSince time.Time `json:"auditedSince,omitzero"`
	// Waiting are the nodes on which it is not in force, with the reason.
	Waiting []NodeState `json:"waiting,omitempty"`
}

// NodeState is a node on which a policy is not in force.
type NodeState struct {
	Node   string `json:"node"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
}

// WorkloadInForce is how far the policies of a workload's pods are in force.
type WorkloadInForce struct {
	// Pods with addresses of their own, and InForce those whose node enforces exactly their policies.
	Pods    int      `json:"pods"`
	InForce int      `json:"inForce"`
	Nodes   []string `json:"nodes"`
	// Waiting are the nodes with a pod whose policies are not in force.
	Waiting []string `json:"waiting,omitempty"`
	// Audit is the number of pods in audit mode.
	Audit int `json:"audit,omitempty"`
}

// whatIsInForce answers from the agents' reports; those of the last seconds count.
func (s *Server) whatIsInForce(r *http.Request) (any, error) {
	if s.options.InForce == nil {
		return nil, failure{http.StatusNotFound, "no agents are asked here: kubectl kidoban status reports what is in force"}
	}
	snap, err := s.snapshot(r.Context())
	if err != nil {
		return nil, err
	}
	s.inForceMu.Lock()
	defer s.inForceMu.Unlock()
	if s.inForce == nil || time.Since(s.asked) >= kept {
		reports, err := s.options.InForce(r.Context())
		if err != nil {
			return nil, err
		}
		s.inForce, s.asked = reports, time.Now()
	}
	out := *s.inForce
	out.Workloads = map[string]WorkloadInForce{}
	for w, state := range out.Pods {
		if n, ok := snap.byObject[w]; ok {
			out.Workloads[snap.nodes[n].id] = state
		}
	}
	return &out, nil
}
