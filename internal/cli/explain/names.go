package explain

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/reference"
)

// cutName splits "api.example.com:443"; false if the text is not a DNS name with a domain. Names of pods with dots in them come first.
func cutName(text string) (name, port string, ok bool) {
	name, port = splitPort(text)
	if strings.Contains(name, "/") || strings.HasPrefix(name, "*") {
		return "", "", false
	}
	name, err := policy.CanonicalDomainName(name)
	return name, port, err == nil
}

// serviceOfName returns "namespace/name" of the Service that a name of the cluster's own domain is for, or false.
func serviceOfName(c *model.Cluster, name string) (string, bool) {
	labels := strings.Split(name, ".")
	if len(labels) < 3 || labels[2] != "svc" || len(labels) > 3 && labels[3] != "cluster" {
		return "", false
	}
	return labels[1] + "/" + labels[0], slices.ContainsFunc(c.Services, func(s corev1.Service) bool { return s.Namespace == labels[1] && s.Name == labels[0] })
}

// askName explains the connections of some ends to a DNS name outside the cluster.
func askName(c *model.Cluster, e *model.Evaluator, sources []end, name, port string) (*Answer, error) {
	if port == "" {
		return nil, fmt.Errorf("--to %s: a name needs a port, as %[1]s:443", name)
	}
	to, err := model.ParsePort(port)
	if err != nil {
		return nil, fmt.Errorf("--to %s: %w", name, err)
	}
	out := &Answer{Notes: c.Notes}
	for _, source := range distinct(c, sources, func(s end) end { return s }) {
		for _, addr := range source.addresses {
			if source.pod != nil && e.Cluster().AssumesIPv6(addr) && len(source.addresses) > 1 {
				continue
			}
			f := policy.Flow{Source: addr, Destination: model.PlaceholderOf(addr.Is4()), Protocol: to.Protocol, Port: to.Number}
			flow := explainName(e, source, f, name)
			if !repeats(out.Flows, &flow) {
				out.Flows = append(out.Flows, flow)
			}
		}
	}
	if len(out.Flows) == 0 {
		return nil, errors.New("the source has no address")
	}
	out.decide()
	return out, nil
}

func explainName(e *model.Evaluator, from end, f policy.Flow, name string) Flow {
	out := Flow{Source: newEnd(from, f.Source), Destination: End{DomainName: name, name: name}, Protocol: f.Protocol.String(), Port: f.Port}
	h := Half{Direction: policy.Egress.String(), Of: out.Source.name}
	if e.PodAt(f.Source) == nil {
		h.Reason, h.Verdict = ReasonNoPod, Allowed
		if from.pod != nil && from.pod.Spec.HostNetwork {
			h.Reason = ReasonHostNetwork
		}
	} else {
		judgeName(e, &h, f, name, &out)
	}
	h.Allowed = h.Verdict == Allowed
	out.Halves = []Half{h}
	out.decide()
	return out
}

func judgeName(e *model.Evaluator, h *Half, f policy.Flow, name string, out *Flow) {
	alternatives := e.JudgeName(f, name)
	v := alternatives[0].ClusterDecision
	isolating := e.Evaluate(policy.Egress, f).Isolating
	for _, np := range isolating {
		h.Isolating = append(h.Isolating, np.Namespace+"/"+np.Name)
	}
	if len(e.Cluster().ClusterPolicies) > 0 {
		h.subjectOf = selecting(e, f.Source)
	}
	if slices.ContainsFunc(alternatives, func(a model.Alternative) bool { return allowsByName(&a.ClusterDecision, name) }) {
		h.byName = true
		out.Notes = append(out.Notes, fmt.Sprintf("a rule by name matches addresses from the answers of trusted resolvers only: the pod has to resolve %s, under exactly this name, before it connects", name))
	}
	h.Verdict = Denied
	if v.Allowed() {
		h.Verdict = Allowed
	}
	switch {
	case slices.ContainsFunc(alternatives, func(a model.Alternative) bool { return a.Action != v.Action }):
		h.Reason, h.Verdict = ReasonDepends, Depends
		for _, a := range alternatives {
			h.Depends = append(h.Depends, Dependence{Allowed: a.Allowed(), Addresses: a.Parts, Rule: ruleOf(policy.Egress, &a.ClusterDecision, f)})
		}
		return
	case clusterRuleOf(&v) != nil:
		h.Reason, h.Rule = ReasonClusterRule, ruleOf(policy.Egress, &v, f)
	case len(isolating) == 0:
		h.Reason = ReasonNotIsolated
	case v.Allowed():
		h.Reason, h.Rule = ReasonRule, ruleOf(policy.Egress, &v, f)
	default:
		h.Reason = ReasonDefaultDeny
		h.Nearest = nearest(e, policy.Egress, isolating, f)
	}
	if len(e.Cluster().ClusterPolicies) > 0 {
		h.Tiers = stepsOf(policy.Egress, &v, len(isolating) > 0, f)
	}
	if h.Verdict == Denied {
		h.ByName = byName(e, &v, f)
	}
}

// allowsByName reports whether a rule with a name that covers this one allowed.
func allowsByName(v *reference.ClusterDecision, name string) bool {
	r := clusterRuleOf(v)
	if r == nil || !v.Allowed() {
		return false
	}
	for _, peer := range model.ClusterRules(policy.Egress, r.Policy)[r.Index].Peers {
		for _, n := range peer.DomainNames {
			if pattern, err := policy.CanonicalDomainName(string(n)); err == nil && policy.CoversName(pattern, name) {
				return true
			}
		}
	}
	return false
}
