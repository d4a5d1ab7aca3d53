package lint

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/kidoban/kidoban/internal/cli/model"
	"github.com/kidoban/kidoban/internal/policy"
)

func nodeAddress(node *corev1.Node) (netip.Addr, bool) {
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			if addr, err := netip.ParseAddr(a.Address); err == nil {
				return addr, true
			}
		}
	}
	return netip.Addr{}, false
}

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

// dns is where pods ask names: the cluster's own servers or, where none are known, any address.
func (l *linter) dns() []netip.Addr {
	var out []netip.Addr
	for _, p := range l.podsWhere(func(p *pod) bool {
		return p.Labels["k8s-app"] == "kube-dns" || p.Labels["app.kubernetes.io/name"] == "coredns"
	}) {
		if policy.IsPeer(&p.Pod) {
			out = append(out, policy.PodAddresses(&p.Pod)...)
		}
	}
	return out
}

func (l *linter) dnsForgotten() {
	servers := l.dns()
	told := map[model.Workload]bool{}
	for i := range l.pods {
		p := &l.pods[i]
		if !p.isPeer || told[p.Workload] {
			continue
		}
		told[p.Workload] = true
		if l.mayAskDNS(p.Pod, servers) {
			continue
		}
		source := p.addresses[0]
		v := l.evaluator.Evaluate(policy.Egress, policy.Flow{Source: source, Destination: netip.IPv4Unspecified(), Protocol: policy.UDP, Port: 53})
		if len(v.Isolating) == 0 {
			continue
		}
		np := v.Isolating[0]
		if l.silent(v.Isolating) {
			l.found(Info, object(np), "spec.egress", "Nothing, if the pods ask no names.", "%s %s may open no connection at all, not to DNS either", p.Workload.Kind, p.Workload)
			continue
		}
		l.found(Warning, object(np), "spec.egress",
			"Add a policy that allows egress to port 53, UDP and TCP, of pods k8s-app=kube-dns in namespace kube-system.",
			"%s %s is isolated in egress and may not ask DNS: names will not resolve", p.Workload.Kind, p.Workload)
	}
}

// silent: the policies have no egress rule at all, so that the pod is meant to open nothing.
func (l *linter) silent(isolating []*networkingv1.NetworkPolicy) bool {
	return !slices.ContainsFunc(isolating, func(np *networkingv1.NetworkPolicy) bool { return len(np.Spec.Egress) > 0 })
}

func (l *linter) mayAskDNS(p *model.Pod, servers []netip.Addr) bool {
	sources := policy.PodAddresses(&p.Pod)
	known := false // a server of the pod's families
	for _, source := range sources {
		for _, s := range servers {
			if s.Is4() != source.Is4() {
				continue
			}
			known = true
			if l.evaluator.Evaluate(policy.Egress, policy.Flow{Source: source, Destination: s, Protocol: policy.UDP, Port: 53}).Allowed() {
				return true
			}
		}
	}
	return !known && slices.ContainsFunc(sources, l.ruleForDNS)
}

// ruleForDNS: where the servers are not known, any egress rule with UDP port 53 will do.
func (l *linter) ruleForDNS(source netip.Addr) bool {
	f := policy.Flow{Source: source, Destination: netip.MustParseAddr("192.0.2.1"), Protocol: policy.UDP, Port: 53}
	v := l.evaluator.Evaluate(policy.Egress, f)
	return v.Allowed() || slices.ContainsFunc(v.Isolating, func(np *networkingv1.NetworkPolicy) bool {
		return slices.ContainsFunc(np.Spec.Egress, func(r networkingv1.NetworkPolicyEgressRule) bool { return policy.MatchesPorts(r.Ports, nil, f) })
	})
}

// shadowedRule finds rules of one policy whose peers and ports another rule of it has too.
func (l *linter) shadowedRule() {
	l.eachPolicy(func(np *networkingv1.NetworkPolicy) {
		for _, d := range policy.Directions {
			rules := policy.NetworkPolicyRules(d, np)
			for i := range rules {
				for j := range rules {
					if i != j && covers(rules[j], rules[i]) && (!covers(rules[i], rules[j]) || i > j) {
						l.found(Warning, object(np), rulePath(d, i), "Delete it.", "allows nothing that %s does not allow already", rulePath(d, j))
						break
					}
				}
			}
		}
	})
}

// covers reports whether every peer and port of b is one of a, as they are written.
func covers(a, b policy.NetworkPolicyRule) bool {
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

// systemNamespaces hold what runs the cluster; a default deny there is seldom wise.
var systemNamespaces = []string{"kube-system", "kube-public", "kube-node-lease", "kidoban-system"}

func (l *linter) noDefaultDeny() {
	for i := range l.cluster.Namespaces {
		name := l.cluster.Namespaces[i].Name
		if slices.Contains(systemNamespaces, name) {
			continue
		}
		var open [2][]string
		for _, p := range l.podsWhere(func(p *pod) bool { return p.isPeer && p.Namespace == name }) {
			for _, d := range policy.Directions {
				isolated := slices.ContainsFunc(l.evaluator.Policies(name), func(np networkingv1.NetworkPolicy) bool { return policy.Selects(d, &np, &p.Pod) })
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
