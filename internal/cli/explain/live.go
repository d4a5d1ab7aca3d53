package explain

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// askAgents adds to each half what the agent of its pod's node has in force.
func askAgents(ctx context.Context, env *command.Env, c *model.Cluster, answer *Answer, namespace string) error {
	apiserver, err := env.Client()
	if err != nil {
		return err
	}
	a, err := agents.Find(ctx, env, apiserver, namespace)
	if err != nil {
		return err
	}
	if err := a.Authorize(ctx, apiserver); err != nil {
		return err
	}
	for i := range answer.Flows {
		f := &answer.Flows[i]
		for j := range f.Halves {
			h := &f.Halves[j]
			of := f.Source
			if h.Direction == policy.Ingress.String() {
				of = f.Destination
			}
			if of.Pod == "" || h.Reason == ReasonNoPod {
				continue
			}
			k := slices.IndexFunc(c.Pods, func(p model.Pod) bool { return p.Namespace == of.Namespace && p.Name == of.Pod })
			node := c.Pods[k].Spec.NodeName
			pod, err := a.Pod(ctx, node, types.NamespacedName{Namespace: of.Namespace, Name: of.Pod})
			if err != nil {
				return err
			}
			h.InForce = compare(h, node, pod)
		}
	}
	return nil
}

// compare what is meant with what the node's agent says.
func compare(h *Half, node string, pod *agentapi.Pod) *InForce {
	out := &InForce{Node: node, State: "unknown"}
	if pod == nil {
		out.Differs = append(out.Differs, "its agent does not know the pod")
		return out
	}
	out.State = pod.State
	if pod.Mode == agentapi.ModeAudit {
		out.Differs = append(out.Differs, "audit mode: what is refused is logged, and passes")
	}
	if pod.State != agentapi.StateInForce {
		out.Differs = append(out.Differs, "what its agent knows is not in the kernel yet")
	}
	there := pod.Ingress
	if h.Direction == policy.Egress.String() {
		there = pod.Egress
	}
	have := map[string]bool{}
	for _, p := range there.Policies {
		have[p.Namespace+"/"+p.Name] = true
	}
	for _, name := range h.Isolating {
		if !have[name] {
			out.Differs = append(out.Differs, fmt.Sprintf("NetworkPolicy %s is not in force there yet", name))
		}
		delete(have, name)
	}
	for name := range have {
		if !strings.HasPrefix(name, "/") {
			out.Differs = append(out.Differs, fmt.Sprintf("%s is in force there, and does not select the pod any more", name))
		}
	}
	slices.Sort(out.Differs)
	return out
}
