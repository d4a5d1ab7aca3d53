package status

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/agents"
	"github.com/kidoban/kidoban/internal/cli/command"
	"github.com/kidoban/kidoban/internal/cli/observer"
)

// report is what one agent says.
type report struct {
	node     agentapi.Node
	pods     []agentapi.Pod
	policies []agentapi.Policy
	names    *agentapi.NameList // nil: no rule has domain names
	denied   int
	err      error
}

// ask all agents, through the observer where there is one. Without a token there are no reports; an agent that does not answer has one that
// says so.
func (s *Status) ask(ctx context.Context, env *command.Env, a *agents.Agents, c client.Client, namespace string) (map[string]*report, error) {
	out := map[string]*report{}
	o, err := observer.Connect(ctx, env, c, namespace)
	if o != nil {
		var nodes []string
		for i := range a.Pods {
			nodes = append(nodes, a.Pods[i].Spec.NodeName)
		}
		out, err = observed(ctx, o.Open, pause, nodes)
		s.Observer, s.Observed = o.Pod.Name, len(out)
	}
	s.observerProblem = err
	if len(out) == len(a.Pods) {
		return out, nil
	}
	if err := a.Authorize(ctx, c); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	_ = a.Each(func(pod *corev1.Pod) error {
		mu.Lock()
		isKnown := out[pod.Spec.NodeName] != nil
		mu.Unlock()
		if isKnown {
			return nil
		}
		r := askAgent(ctx, a, pod)
		mu.Lock()
		defer mu.Unlock()
		out[pod.Spec.NodeName] = r
		return nil
	})
	return out, nil
}

// askAgent asks one agent.
func askAgent(ctx context.Context, a *agents.Agents, pod *corev1.Pod) *report {
	r := &report{}
	var policies agentapi.PolicyList
	if r.err = a.Get(ctx, pod, agentapi.PathNode, &r.node); r.err == nil {
		r.pods, r.err = awaitPods(ctx, pause, func() ([]agentapi.Pod, error) {
			var list agentapi.PodList
			err := a.Get(ctx, pod, agentapi.PathPods, &list)
			return list.Pods, err
		})
	}
	if r.err == nil {
		r.err = a.Get(ctx, pod, agentapi.PathPolicies, &policies)
	}
	if r.err == nil && agentapi.HaveDomainNames(r.pods) {
		r.names = &agentapi.NameList{}
		r.err = a.Get(ctx, pod, agentapi.PathNames, r.names)
	}
	if r.err == nil {
		r.denied, r.err = denials(ctx, a, pod)
	}
	r.policies = policies.Policies
	return r
}
