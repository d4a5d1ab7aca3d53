package lint

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/netpol"
	"github.com/kidoban/kidoban/internal/policy"
	"github.com/kidoban/kidoban/internal/policy/application"
)

func some(names map[string]bool) string {
	var out []string
	for n := range names {
		out = append(out, n)
	}
	slices.Sort(out)
	if len(out) > 4 {
		out = append(out[:4], "…")
	}
	return strings.Join(out, ", ")
}

// shadowedRule finds rules of one policy whose peers and ports another rule of it has too.
func (l *linter) shadowedRule() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for _, d := range policy.Directions {
			rules := netpol.Rules(d, np)
			for i := range rules {
				for j := range rules {
					if i != j && coversRule(np, d, j, i) && (!coversRule(np, d, i, j) || i > j) {
						l.found(Warning, object(np), rulePath(d, i), "Delete it.", "allows nothing that %s does not allow already", rulePath(d, j))
						break
					}
				}
			}
		}
	})
}

// coversRule reports whether a rule of a policy has every peer, name and port of another one.
func coversRule(np *networkingv1.NetworkPolicy, d policy.Direction, i, j int) bool {
	rules := netpol.Rules(d, np)
	if !covers(rules[i], rules[j]) {
		return false
	}
	return d == policy.Ingress || len(rules[i].Peers) == 0 || subset(application.DomainNames(np, j), application.DomainNames(np, i))
}

// covers reports whether every peer and port of b is one of a, by their text.
func covers(a, b netpol.Rule) bool {
	peers := len(a.Peers) == 0 || len(b.Peers) > 0 && subset(b.Peers, a.Peers)
	ports := len(a.Ports) == 0 || len(b.Ports) > 0 && subset(b.Ports, a.Ports)
	return peers && ports
}

func subset[T any](some, all []T) bool {
	for i := range some {
		text, _ := json.Marshal(some[i])
		if !slices.ContainsFunc(all, func(o T) bool {
			other, _ := json.Marshal(o)
			return bytes.Equal(text, other)
		}) {
			return false
		}
	}
	return true
}

// systemNamespaces hold the cluster's own pods; a default deny there is seldom wise.
var systemNamespaces = []string{"kube-system", "kube-public", "kube-node-lease", "kidoban-system"}

// noDefaultDeny finds namespaces without a default deny. Files with cluster policies alone are an administrator's: the namespaces'
// own policies are elsewhere.
func (l *linter) noDefaultDeny() {
	if len(l.cluster.Policies) == 0 && len(l.cluster.ClusterPolicies) > 0 {
		return
	}
	for i := range l.cluster.Namespaces {
		name := l.cluster.Namespaces[i].Name
		if slices.Contains(systemNamespaces, name) {
			continue
		}
		var open [2][]string
		for _, p := range l.podsWhere(func(p *pod) bool { return p.isPeer && p.Namespace == name }) {
			for _, d := range policy.Directions {
				isolated := slices.ContainsFunc(l.evaluator.Policies(name), func(np networkingv1.NetworkPolicy) bool { return netpol.Selects(d, &np, &p.Pod) })
				if !isolated && !slices.Contains(open[d], p.Workload.Name) {
					open[d] = append(open[d], p.Workload.Name)
				}
			}
		}
		for _, d := range policy.Directions {
			if len(open[d]) == 0 {
				continue
			}
			severity, which := Warning, "no policy at all isolates its pods"
			if len(l.evaluator.Policies(name)) > 0 {
				which = "these workloads are open"
			}
			if d == policy.Egress {
				severity = Info
			}
			names := map[string]bool{}
			for _, n := range open[d] {
				names[n] = true
			}
			l.found(severity, "Namespace "+name, "", "Add a policy with an empty podSelector, policyTypes ["+d.String()+"] and no rules.",
				"no default deny for %s: %s (%s)", strings.ToLower(d.String()), which, some(names))
		}
	}
}
