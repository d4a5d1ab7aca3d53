package status

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/policy"
)

// looks at a node's pods before they are reported as Pending, and the pause between two.
const (
	looks = 5
	pause = 200 * time.Millisecond
)

// mostNames is how many pods are named where more have no policies in force.
const mostNames = 3

// awaitPods asks until no pod is Pending: on a busy node the agent is always writing something, which is no fault.
func awaitPods(ctx context.Context, every time.Duration, look func() ([]agentapi.Pod, error)) ([]agentapi.Pod, error) {
	for n := 1; ; n++ {
		pods, err := look()
		if err != nil || !arePending(pods) || n == looks {
			return pods, err
		}
		select {
		case <-ctx.Done():
			return pods, ctx.Err()
		case <-time.After(every):
		}
	}
}

func arePending(pods []agentapi.Pod) bool {
	return slices.ContainsFunc(pods, func(p agentapi.Pod) bool { return p.State != agentapi.StateInForce })
}

// unjudged compares the pods that there are with those that agents have in force. A node without an agent, or without its answer, is
// reported already.
func (s *Status) unjudged(pods []corev1.Pod, reports map[string]*report) {
	judged := map[types.UID]bool{}
	for _, r := range reports {
		for _, p := range r.pods {
			judged[types.UID(p.UID)] = p.State == agentapi.StateInForce
		}
	}
	missing := map[string][]string{} // by node
	for i := range pods {
		p := &pods[i]
		r := reports[p.Spec.NodeName]
		if r == nil || r.err != nil || judged[p.UID] || !policy.IsPeer(p) || p.DeletionTimestamp != nil { // the last may be gone by now
			continue
		}
		missing[p.Spec.NodeName] = append(missing[p.Spec.NodeName], p.Namespace+"/"+p.Name)
	}
	for _, n := range slices.Sorted(maps.Keys(missing)) {
		names := missing[n]
		slices.Sort(names)
		count := len(names)
		if count > mostNames {
			names = append(names[:mostNames], "…")
		}
		s.attend("node %s: its agent does not know, or has not in force, %d pods: %s", n, count, strings.Join(names, ", "))
	}
}
