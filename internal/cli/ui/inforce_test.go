package ui

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/ui"
)

// A node on which one pod's policies are not in force is one that the workload waits for, whatever its other pods there.
func TestPodsInForce(t *testing.T) {
	out := &ui.InForce{Pods: map[model.Workload]ui.WorkloadInForce{}}
	pod := func(name, state string) agentapi.Pod {
		return agentapi.Pod{Namespace: "shop", Name: name, Workload: &agentapi.Workload{Kind: "Deployment", Name: "web"}, State: state}
	}
	audited := pod("web-3", agentapi.StateInForce)
	audited.Mode = agentapi.ModeAudit
	addPods(out, "n1", []agentapi.Pod{pod("web-1", agentapi.StateInForce), pod("web-2", agentapi.StatePending), pod("web-4", agentapi.StatePending)})
	addPods(out, "n2", []agentapi.Pod{audited, {Namespace: "shop", Name: "alone", State: agentapi.StatePending}})
	want := map[model.Workload]ui.WorkloadInForce{
		{Namespace: "shop", Kind: "Deployment", Name: "web"}: {Pods: 4, InForce: 2, Nodes: []string{"n1", "n2"}, Waiting: []string{"n1"}, Audit: 1},
		{Namespace: "shop", Kind: "Pod", Name: "alone"}:      {Pods: 1, Nodes: []string{"n2"}, Waiting: []string{"n2"}},
	}
	if d := cmp.Diff(want, out.Pods); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
