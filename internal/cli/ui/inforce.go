package ui

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/cli/status"
	"github.com/kidoban/kidoban/internal/ui"
)

// inForce asks the agents, as `kubectl kidoban status` does.
func inForce(ctx context.Context, env *command.Env, namespace string) (*ui.InForce, error) {
	c, err := env.Client()
	if err != nil {
		return nil, err
	}
	s, err := status.Read(ctx, env, c, namespace)
	if err != nil {
		return nil, rights(err)
	}
	a, err := agents.Connect(ctx, env, c, namespace)
	if err != nil {
		return nil, rights(err)
	}
	out := policiesInForce(s)
	var mu sync.Mutex
	err = a.Each(func(pod *corev1.Pod) error {
		var list agentapi.PodList
		if err := a.Get(ctx, pod, agentapi.PathPods, &list); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		addPods(out, pod.Spec.NodeName, list.Pods)
		return nil
	})
	if err != nil {
		out.Problems = append(out.Problems, err.Error())
	}
	for _, w := range out.Pods {
		slices.Sort(w.Nodes)
		slices.Sort(w.Waiting)
	}
	return out, nil
}

func policiesInForce(s *status.Status) *ui.InForce {
	out := &ui.InForce{Policies: map[string]ui.PolicyInForce{}, Pods: map[model.Workload]ui.WorkloadInForce{}, Problems: s.Attention}
	for i := range s.Policies {
		p := &s.Policies[i]
		one := ui.PolicyInForce{Nodes: len(p.Nodes), InForce: p.InForce, Resolved: p.Resolved, Message: p.Message}
		if p.AuditedSince != nil {
			one.AuditedSince = p.AuditedSince.Time
		}
		for _, n := range p.Nodes {
			if n.State == agentapi.StateInForce && n.Generation == p.Generation {
				continue
			}
			reason := n.Problem
			if len(n.WaitingFor) > 0 {
				reason = strings.TrimPrefix(reason+"; waits for "+strings.Join(n.WaitingFor, ", "), "; ")
			}
			one.Waiting = append(one.Waiting, ui.NodeState{Node: n.Node, State: n.State, Reason: reason})
		}
		name := p.Name
		if p.Namespace != "" {
			name = p.Namespace + "/" + p.Name
		}
		out.Policies[fmt.Sprintf("%s %s", cmp.Or(p.Kind, agentapi.KindNetworkPolicy), name)] = one
	}
	return out
}

// addPods of a node's report to their workloads.
func addPods(to *ui.InForce, node string, pods []agentapi.Pod) {
	for _, p := range pods {
		w := model.Workload{Namespace: p.Namespace, Kind: "Pod", Name: p.Name}
		if p.Workload != nil {
			w.Kind, w.Name = p.Workload.Kind, p.Workload.Name
		}
		state := to.Pods[w]
		state.Pods++
		if p.State == agentapi.StateInForce {
			state.InForce++
		} else if !slices.Contains(state.Waiting, node) {
			state.Waiting = append(state.Waiting, node)
		}
		if p.Mode == agentapi.ModeAudit {
			state.Audit++
		}
		if !slices.Contains(state.Nodes, node) {
			state.Nodes = append(state.Nodes, node)
		}
		to.Pods[w] = state
	}
}
