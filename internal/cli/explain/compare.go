package explain

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/kidoban/kidoban/internal/agentapi"
	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

// compare the decision with the report of the node's agent. The node's mode belongs to the decision.
func (h *Half) compare(c *model.Cluster, node string, s *said, of End) {
	h.InForce = &InForce{Node: node, State: "unknown"}
	differs := func(format string, args ...any) {
		h.InForce.Differs = append(h.InForce.Differs, fmt.Sprintf(format, args...))
	}
	k := slices.IndexFunc(s.pods, func(p agentapi.Pod) bool { return p.Namespace == of.Namespace && p.Name == of.Pod })
	if k < 0 {
		differs("its agent does not list the pod")
		return
	}
	pod := &s.pods[k]
	h.InForce.State = pod.State
	if pod.Mode == agentapi.ModeAudit {
		differs("audit mode: denied connections are logged and pass")
	}
	if pod.State != agentapi.StateInForce {
		differs("the newest state of its agent is not in force yet")
	}
	there := pod.Ingress.Policies
	if h.Direction == policy.Egress.String() {
		there = pod.Egress.Policies
	}
	if h.Reason == ReasonNotIsolated && isStrict(pod.Mode, there) {
		h.Allowed, h.Verdict, h.Reason = false, Denied, ReasonStrict
	}
	c = c.Enforced()
	for i := range c.Policies {
		np := &c.Policies[i]
		if !slices.Contains(h.Isolating, np.Namespace+"/"+np.Name) {
			continue
		}
		if why := behind(np, agentapi.KindNetworkPolicy, there, s.policies); why != "" {
			differs("NetworkPolicy %s/%s is %s", np.Namespace, np.Name, why)
		}
	}
	for i := range c.ClusterPolicies {
		p := &c.ClusterPolicies[i]
		if !slices.Contains(h.subjectOf, p.Name) || !hasRules(p, h.Direction) {
			continue
		}
		if why := behind(p, model.ClusterPolicyKind, there, s.policies); why != "" {
			differs("%s %s is %s", model.ClusterPolicyKind, p.Name, why)
		}
	}
	for _, p := range there {
		switch {
		case p.Kind == agentapi.KindEnforcingMode, p.Kind == model.ClusterPolicyKind && slices.Contains(h.subjectOf, p.Name):
		case p.Kind == model.ClusterPolicyKind:
			differs("%s is still in force there, and no longer selects the pod", p)
		case p.Kind != agentapi.KindNetworkPolicy:
			differs("%s is in force there too, and is not evaluated here", p)
		case !slices.Contains(h.Isolating, p.Namespace+"/"+p.Name):
			differs("%s is still in force there, and no longer selects the pod", p)
		}
	}
	slices.Sort(h.InForce.Differs)
}

// isStrict reports whether the node isolates a pod in a direction in which no NetworkPolicy does. there are the policies that the
// node has for it; one that is no NetworkPolicy may keep the pod open, and one that is will be gone.
func isStrict(mode string, there []agentapi.PolicyRef) bool {
	isMode := func(p agentapi.PolicyRef) bool { return p.Kind == agentapi.KindEnforcingMode }
	isOther := func(p agentapi.PolicyRef) bool { return p.Kind != agentapi.KindNetworkPolicy }
	return slices.ContainsFunc(there, isMode) || mode == agentapi.ModeStrict && !slices.ContainsFunc(there, isOther)
}

// hasRules reports whether a ClusterNetworkPolicy has rules of a direction.
func hasRules(p *cnp.ClusterNetworkPolicy, direction string) bool {
	if direction == policy.Egress.String() {
		return len(p.Spec.Egress) > 0
	}
	return len(p.Spec.Ingress) > 0
}

// behind says what the node lacks of a policy that selects a pod; there are those that select it on the node.
func behind(np metav1.Object, kind string, there []agentapi.PolicyRef, policies []agentapi.Policy) string {
	ref := agentapi.PolicyRef{Kind: kind, Namespace: np.GetNamespace(), Name: np.GetName()}
	p := agentapi.FindPolicy(policies, ref)
	if p == nil {
		return "not in force there yet"
	}
	out := ""
	switch r := p.Realised; {
	case r == nil:
		out = "not in force there yet"
	case p.Audited:
		out = "still audited there"
	case r.UID != string(np.GetUID()):
		out = "not in force there: an older policy of that name is"
	case r.Generation != np.GetGeneration():
		out = fmt.Sprintf("in force there at generation %d; its newest generation is %d", r.Generation, np.GetGeneration())
	case p.State != agentapi.StateInForce:
		out = "not in force there in its newest version"
	case !slices.Contains(there, ref):
		out = "not in force there yet"
	}
	if out != "" && len(p.WaitingFor) > 0 {
		out += ": it waits for " + strings.Join(p.WaitingFor, ", ")
	}
	return out
}
