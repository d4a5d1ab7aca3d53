package agent

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/compiler"
	"github.com/kidoban/kidoban/internal/flowlog"
	"github.com/kidoban/kidoban/internal/policy"
)

// What a pod did last is logged when it is gone; for this long its addresses have its name, unless they get another.
const departedNames = time.Minute

// departed is who had an address until lately.
type departed struct {
	flowlog.Pod
	since time.Time
}

// depart remembers who had addresses that nobody has any more.
func (s *state) depart(key types.NamespacedName, p *pod) {
	for _, addr := range p.addresses {
		if len(s.owners[addr]) == 0 {
			s.departed[addr] = departed{flowlog.Pod{Namespace: key.Namespace, Name: key.Name, Workload: p.workload}, time.Now()}
		}
	}
}

func (s *state) forgetDeparted() {
	for addr, d := range s.departed {
		if time.Since(d.since) > departedNames {
			delete(s.departed, addr)
		}
	}
}

// podAt is who has an address, or had it until lately.
func (s *state) podAt(addr netip.Addr) (flowlog.Pod, bool) {
	for _, key := range s.owners[addr] {
		if s.owns(key, addr) {
			return flowlog.Pod{Namespace: key.Namespace, Name: key.Name, Workload: s.pods[key].workload}, true
		}
	}
	d, ok := s.departed[addr]
	return d.Pod, ok
}

// workload is what a pod belongs to: its controller or, for a ReplicaSet that a Deployment made, that Deployment.
func workload(pod *corev1.Pod) *agentapi.Workload {
	owner := metav1.GetControllerOf(pod)
	if owner == nil {
		return nil
	}
	w := &agentapi.Workload{Kind: owner.Kind, Name: owner.Name}
	if hash := pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]; owner.Kind == "ReplicaSet" && hash != "" {
		if name, ok := strings.CutSuffix(owner.Name, "-"+hash); ok {
			w = &agentapi.Workload{Kind: "Deployment", Name: name}
		}
	}
	return w
}

func sameWorkload(a, b *agentapi.Workload) bool {
	return a == b || a != nil && b != nil && *a == *b
}

func policyRef(id policy.ID) agentapi.PolicyRef {
	return agentapi.PolicyRef{Kind: id.Kind, Namespace: id.Namespace, Name: id.Name}
}

// Names tells the flow log who and what is behind addresses and IDs.
func (a *Agent) Names() flowlog.Directory { return names{a} }

type names struct{ a *Agent }

func (n names) Pod(addr netip.Addr) (flowlog.Pod, bool) {
	n.a.mu.Lock()
	defer n.a.mu.Unlock()
	return n.a.state.podAt(addr)
}

func (n names) Rule(id compiler.RuleID) (agentapi.RuleRef, bool) {
	n.a.mu.Lock()
	defer n.a.mu.Unlock()
	ref, ok := n.a.state.compiler.Rule(id)
	if !ok {
		return agentapi.RuleRef{}, false
	}
	return ruleRef(ref.Policy, &ref.Policy.Rules[ref.Direction][ref.Rule]), true
}

func (n names) Isolating(set compiler.SetID) []agentapi.PolicyRef {
	n.a.mu.Lock()
	defer n.a.mu.Unlock()
	return policyRefs(n.a.state.compiler.Set(set))
}

func ruleRef(p *policy.Policy, r *policy.Rule) agentapi.RuleRef {
	return agentapi.RuleRef{PolicyRef: policyRef(p.ID), Rules: slices.Clone(r.Origin)}
}

func policyRefs(policies []*policy.Policy) []agentapi.PolicyRef {
	var out []agentapi.PolicyRef
	for _, p := range policies {
		out = append(out, policyRef(p.ID))
	}
	return out
}
