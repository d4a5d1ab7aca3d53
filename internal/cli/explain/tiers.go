package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	cnp "sigs.k8s.io/network-policy-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// Step is a tier of evaluation, and its outcome for one direction of a flow.
type Step struct {
	Tier    string `json:"tier"`
	Outcome string `json:"outcome"`
	// Rule that matched in the tier.
	Rule *Rule `json:"rule,omitempty"`
}

// Outcomes of a Step. A rule of a ClusterNetworkPolicy gives its action: Accept, Deny or Pass.
const (
	OutcomeAllow       = "Allow"       // a rule of a NetworkPolicy
	OutcomeDefaultDeny = "DefaultDeny" // NetworkPolicies isolate the pod, and none of their rules matches
	OutcomeNotIsolated = "NotIsolated" // no NetworkPolicy isolates the pod
	OutcomeOwnNode     = "OwnNode"     // NetworkPolicies do not apply between a pod and its own node
	OutcomeNoMatch     = "NoMatch"     // no rule of the tier matches
	OutcomeNotReached  = "NotReached"  // a tier before decided
)

// stepsOf a decision: each tier in the order of evaluation.
func stepsOf(d policy.Direction, v *reference.ClusterDecision, isolated bool, f policy.Flow) []Step {
	cluster := func(tier policy.Tier, reached bool, r *reference.ClusterRule) Step {
		out := Step{Tier: tier.String(), Outcome: OutcomeNoMatch}
		switch {
		case !reached:
			out.Outcome = OutcomeNotReached
		case r != nil:
			rule := quoteCluster(d, r)
			out.Outcome, out.Rule = actionOf(r.Action), &rule
		}
		return out
	}
	np := Step{Tier: policy.TierNetworkPolicy.String(), Outcome: OutcomeNotReached}
	switch n := v.NetworkPolicy; {
	case n == nil:
	case !isolated:
		np.Outcome = OutcomeNotIsolated
	case n.Policy != nil:
		rule := quote(d, n.Policy, n.Rule, f.Peer(d))
		np.Outcome, np.Rule = OutcomeAllow, &rule
	case n.Allowed():
		np.Outcome = OutcomeOwnNode
	default:
		np.Outcome = OutcomeDefaultDeny
	}
	return []Step{
		cluster(policy.TierAdmin, true, v.Admin), np,
		cluster(policy.TierBaseline, v.NetworkPolicy != nil && !isolated, v.Baseline),
	}
}

// actionOf is an action in the words of ClusterNetworkPolicy.
func actionOf(a policy.Action) string {
	if a == policy.Allow {
		return string(cnp.ClusterNetworkPolicyRuleActionAccept)
	}
	return a.String()
}

// clusterRuleOf is the rule of a ClusterNetworkPolicy that decided, or nil.
func clusterRuleOf(v *reference.ClusterDecision) *reference.ClusterRule {
	if v.Tier == policy.TierAdmin {
		return v.Admin
	}
	if v.Tier == policy.TierBaseline {
		return v.Baseline
	}
	return nil
}

// quoteCluster quotes a rule as a manifest has it.
func quoteCluster(d policy.Direction, r *reference.ClusterRule) Rule {
	p := r.Policy
	out := Rule{
		Kind: model.ClusterPolicyKind, Policy: p.Name, Priority: &p.Spec.Priority,
		Path: fmt.Sprintf("spec.%s[%d]", strings.ToLower(d.String()), r.Index),
	}
	var text []byte
	if d == policy.Ingress {
		rule := p.Spec.Ingress[r.Index]
		out.Name = rule.Name
		text, _ = yaml.Marshal([]cnp.ClusterNetworkPolicyIngressRule{rule})
		rule.From, rule.Protocols = firstOf(rule.From), firstOf(rule.Protocols)
		out.short = shortText(text, []cnp.ClusterNetworkPolicyIngressRule{rule})
	} else {
		rule := p.Spec.Egress[r.Index]
		out.Name = rule.Name
		text, _ = yaml.Marshal([]cnp.ClusterNetworkPolicyEgressRule{rule})
		rule.To, rule.Protocols = firstOf(rule.To), firstOf(rule.Protocols)
		out.short = shortText(text, []cnp.ClusterNetworkPolicyEgressRule{rule})
	}
	out.Quote = string(text)
	if r.Unreadable {
		rule := model.ClusterRules(d, p)[r.Index]
		out.Unreadable = rule.Unreadable(model.TierOf(p))
	}
	return out
}

func firstOf[T any](list []T) []T { return list[:min(len(list), mostQuoted)] }

// shortText is the text of a rule with the peers and protocols that fit on a screen.
func shortText(full []byte, rule any) string {
	text, _ := yaml.Marshal(rule)
	if string(text) == string(full) {
		return string(text)
	}
	return string(text) + "# less the rest, which -o json has\n"
}

// describe is "ClusterNetworkPolicy name, rule NAME (spec.egress[0])", or "NetworkPolicy namespace/name, spec.egress[0]".
func (r *Rule) describe() string {
	switch {
	case r.Kind == "":
		return fmt.Sprintf("NetworkPolicy %s, %s", r.Policy, r.Path)
	case r.Name == "":
		return fmt.Sprintf("%s %s, %s", r.Kind, r.Policy, r.Path)
	}
	return fmt.Sprintf("%s %s, rule %s (%s)", r.Kind, r.Policy, r.Name, r.Path)
}

// byName are the rules that would allow a flow to an address outside the cluster if the pod had it from a name.
func byName(e *model.Evaluator, v *reference.ClusterDecision, f policy.Flow) (out []ByName) {
	pod := e.PodAt(f.Source)
	if pod == nil || e.PodAt(f.Destination) != nil || v.Allowed() {
		return nil
	}
	for _, p := range e.ClusterPoliciesOf(pod) {
		if model.TierOf(p) != policy.TierAdmin {
			continue
		}
		for i, r := range model.ClusterRules(policy.Egress, p) {
			if v.Admin != nil && v.Admin.Policy.Name == p.Name && v.Admin.Index == i {
				return out // rules behind the one that matched do not count
			}
			if r.Action != cnp.ClusterNetworkPolicyRuleActionAccept || r.Unreadable(policy.TierAdmin) != "" || !r.MatchesProtocols(nil, f) {
				continue
			}
			var names []string
			for _, peer := range r.Peers {
				for _, n := range peer.DomainNames {
					names = append(names, string(n))
				}
			}
			if len(names) > 0 {
				rule := quoteCluster(policy.Egress, &reference.ClusterRule{Policy: p, Index: i, Action: policy.Allow})
				out = append(out, ByName{Rule: rule, Names: names})
			}
		}
	}
	return out
}

// ByName is a rule that allows a flow if the pod has the address from one of these names.
type ByName struct {
	Rule  Rule     `json:"rule"`
	Names []string `json:"names"`
}

// withoutNetworkPolicies is the cluster as far as a pod's connections to itself through a Service are concerned.
func withoutNetworkPolicies(e *model.Evaluator) *model.Evaluator {
	c := *e.Cluster()
	c.Policies = nil
	return model.NewEvaluator(&c)
}

// selecting are the names of the ClusterNetworkPolicies with the pod at an address as subject.
func selecting(e *model.Evaluator, addr netip.Addr) (names []string) {
	if pod := e.PodAt(addr); pod != nil {
		for _, p := range e.ClusterPoliciesOf(pod) {
			names = append(names, p.Name)
		}
	}
	slices.Sort(names)
	return names
}
