package explain

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// said is what a node's agent says.
type said struct {
	pods     []agentapi.Pod
	policies []agentapi.Policy
	names    []agentapi.LearnedName
}

// askAgents adds to each half what the agent of its pod's node has in force.
func askAgents(ctx context.Context, env *command.Env, c *model.Cluster, answer *Answer, namespace string) error {
	apiserver, err := env.Client()
	if err != nil {
		return err
	}
	a, err := agents.Connect(ctx, env, apiserver, namespace)
	if err != nil {
		return err
	}
	return inForce(c, answer, once(func(node string) (*said, error) {
		agent := a.On(node)
		if agent == nil {
			return nil, fmt.Errorf("no agent on node %s", node)
		}
		var pods agentapi.PodList
		var policies agentapi.PolicyList
		if err := a.Get(ctx, agent, agentapi.PathPods, &pods); err != nil {
			return nil, err
		}
		if err := a.Get(ctx, agent, agentapi.PathPolicies, &policies); err != nil {
			return nil, err
		}
		out := &said{pods: pods.Pods, policies: policies.Policies}
		if !answer.concernsNames() {
			return out, nil
		}
		var names agentapi.NameList
		if err := a.Get(ctx, agent, agentapi.PathNames, &names); err != nil {
			return nil, err
		}
		out.names = names.Names
		return out, nil
	}))
}

// once asks each node once.
func once(ask func(node string) (*said, error)) func(node string) (*said, error) {
	known := map[string]*said{}
	return func(node string) (*said, error) {
		if s := known[node]; s != nil {
			return s, nil
		}
		s, err := ask(node)
		known[node] = s
		return s, err
	}
}

func inForce(c *model.Cluster, answer *Answer, ask func(node string) (*said, error)) error {
	for i := range answer.Flows {
		f := &answer.Flows[i]
		for j := range f.Halves {
			h := &f.Halves[j]
			of := f.Source
			if h.Direction == policy.Ingress.String() {
				of = f.Destination
			}
			if of.Pod == "" || h.Reason == ReasonNoPod || h.Reason == ReasonHostNetwork {
				continue
			}
			k := slices.IndexFunc(c.Pods, func(p model.Pod) bool { return p.Namespace == of.Namespace && p.Name == of.Pod })
			if k < 0 || c.Pods[k].Spec.NodeName == "" { // it runs on no node
				continue
			}
			node := c.Pods[k].Spec.NodeName
			s, err := ask(node)
			if err != nil {
				return err
			}
			h.compare(c, node, s, of)
			f.learned(h, s, time.Now())
		}
		f.decide()
	}
	answer.decide()
	return nil
}
